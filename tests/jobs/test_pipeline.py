"""The whole pipeline on a few small phantoms, as the demo runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace, update_summary
from etl.contract.schema import PHANTOM_FINDINGS
from jobs.pipeline import VARIANTS, main, run_stage, show, stages, usual_ranks
from training.record.store import use_store

PROJECT = Path(__file__).parents[2]
SMALL = """
phantoms: {num_images: 240, size_px: 256}
etl: {sizes_px: [64, 96], rows_per_row_group: 16, rows_per_file: 64, val_fraction: 0.25}
training: {model: simple_cnn, size_px: 64, epochs: 1}
inference: {num_calibration_images: 32, max_mean_drop: 1, max_finding_drop: 1}
"""


def pipeline(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "jobs/pipeline.py", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_from_nothing_to_a_champion_that_predicts(tmp_path):
    scenario = tmp_path / "small.yaml"
    scenario.write_text(SMALL)
    workspace = Workspace.at(str(tmp_path / "workspace"))
    finished = pipeline("--config", str(scenario), "--workspace", str(workspace.root))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    summary = json.loads(workspace.summary.read_text())
    assert summary["data"]["images"] == 240
    assert summary["data"]["quarantined"] == 0
    assert summary["training"]["launcher"] == "horovodrun"
    assert summary["training"]["world_size"] == 2
    assert set(summary["seconds"]) == {"etl", "training", "register", "all"}
    assert {"torch", "fp32", "int8"} <= set(summary["test_auroc"])
    assert summary["registry"]["version"] == 1
    # One epoch on a few hundred phantoms learns nothing that these few test images could show.
    assert summary["registry"]["aliases"] == ["challenger"]
    assert "chance is 0.5" in summary["registry"]["gate_reasons"][-1]
    promote = [sys.executable, "inference/promote.py", "--workspace", str(workspace.root)]
    subprocess.run(promote, cwd=PROJECT, check=True)
    assert set(summary["peak_memory_mb"]) == {"etl_worker", "training_rank", "register"}
    for made in ("shards", "quarantine", "card.json", "figures", "checkpoints", "model", "mlflow.db", "summary.json"):
        assert (workspace.root / made).exists(), made

    use_store(workspace)
    champion = mlflow.pyfunc.load_model("models:/chexscale@champion")
    said = finished.stdout + finished.stderr
    assert said.count("Best epoch") == 1, "only rank 0 prints"
    for work in ("phantoms", "images to shards", "training", "features of the val split"):
        # A slow machine may need more than half a minute.
        lines = re.findall(rf"^(?:\[0]<stderr>:)?{work}: ([\d,]+) of \1 in .*$", said, re.MULTILINE)
        assert len(lines) == 1, said
    assert not re.search("\x1b|%\\||━ ", said), "no bar in a pipe"
    probabilities = np.asarray(champion.predict(np.zeros((2, 64, 64), np.uint8)).drop(columns="distance"))
    assert probabilities.shape == (2, len(PHANTOM_FINDINGS))
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.slow
def test_the_first_failing_stage_stops_the_pipeline_with_its_own_message(tmp_path):
    workspace = tmp_path / "workspace"
    finished = pipeline("--workspace", str(workspace), "--etl.source", str(tmp_path / "nowhere"))
    assert finished.returncode == 2
    # spark-submit redirects its Python's stderr to stdout.
    assert f"error: no source folder at {tmp_path / 'nowhere'}" in finished.stdout
    assert "stage etl failed" in finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
    assert not workspace.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--etl.sise", "3"], "etl.sise"),
        (["--etl.sizes_px", "64"], "training.size_px is 96, but etl.sizes_px is [64]: set"),
    ],
)
def test_a_wrong_setting_ends_before_any_stage(tmp_path, wrong, message):
    finished = pipeline("--workspace", str(tmp_path / "workspace"), *wrong)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize(("stage", "code"), [("exit 3", 3), ("kill -9 $$", 137)])
def test_the_pipeline_exits_with_the_code_of_the_stage(stage, code, capfd):
    with pytest.raises(SystemExit) as ended:
        run_stage("training", ["sh", "-c", stage])
    assert ended.value.code == code
    assert "stage training failed" in capfd.readouterr().err


def test_the_stages_start_a_spark_that_pip_installed_quietly(tmp_path, monkeypatch, capfd):
    (tmp_path / "pyspark").mkdir()
    (tmp_path / "pyspark" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pyspark", raising=False)
    for name in ("SPARK_HOME", "SPARK_CONF_DIR"):
        monkeypatch.delenv(name, raising=False)
    run_stage("etl", ["sh", "-c", 'cat "$SPARK_CONF_DIR/log4j2.properties"'])
    assert "rootLogger.level = error" in capfd.readouterr().out


def test_a_check_ends_before_the_first_stage(tmp_path, monkeypatch):
    def check(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["pipeline.py", "--check", "--workspace", str(tmp_path / "run"), *arguments])
        main()

    monkeypatch.setattr("jobs.pipeline.run_stage", lambda *_: pytest.fail("a stage was started"))
    check()
    with pytest.raises(InputError, match="training.size_px is 300, but etl.sizes_px is"):
        check("--training.size_px", "300")
    for argument in ("--rebuild", "--resume"):
        with pytest.raises(InputError, match="leave them out, and rebuild by jobs/slurm/etl.sbatch"):
            check(argument)


@pytest.mark.parametrize("server", ["", "http://host:5000"])
def test_stages_that_found_nothing_to_do_have_no_speed(tmp_path, capsys, monkeypatch, server):
    monkeypatch.setattr(sys, "argv", ["pipeline.py", f"--tracking_server={server}", "--rebuild"])
    settings = Settings(str(tmp_path), tracking_server=server)
    registered = {"model": "chexscale", "version": 2, "aliases": ["challenger"]}
    update_summary(
        Workspace.of(settings),
        data={"images": 240},
        seconds={"etl": 9.0, "training": 8.0, "register": 30.0},
        peak_memory_mb={"register": 1200},
        throughput={"int8": 836.0},
        test_auroc=dict.fromkeys(VARIANTS, 0.75),
        registry=registered,
    )
    show(Console(width=120), settings, Workspace.of(settings))
    said = capsys.readouterr().out
    assert re.search(r"etl +│ 9 +│ +│ +│", said) and re.search(r"register +│ 30 +│ 836 +│ 1,200 MB", said), said
    assert "chexscale version 2 is @challenger. Look at:" in said
    runs, served = f"make ui WORKSPACE={tmp_path}", f"make serve WORKSPACE={tmp_path}"
    if server:
        runs, served = server, f"inference/serve.py --tracking_server={server}"
    assert f"  4. {runs} " in said and re.search(rf"  5. .*{re.escape(served)} ", said), said


def test_the_number_of_ranks_is_that_of_the_gpus_or_two(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("jobs.pipeline.GPU_FILES", ())
    assert usual_ranks("auto") == 2
    monkeypatch.setattr("jobs.pipeline.GPU_FILES", ("null",))
    assert [usual_ranks(device) for device in ("auto", "cuda", "cpu")] == [8, 8, 2]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert usual_ranks("auto") == 2


@pytest.mark.parametrize(("installed", "launcher"), [(True, ["horovodrun", "--gloo"]), (False, ["torchrun"])])
def test_ranks_start_by_torchrun_if_horovod_is_not_installed(tmp_path, monkeypatch, installed, launcher):
    if installed:
        (tmp_path / "horovodrun").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    command = stages(3)["training"]
    assert command[: len(launcher)] == launcher
    assert "3" in command and command[-1].endswith("training/train.py")
