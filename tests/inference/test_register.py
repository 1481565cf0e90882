"""The command as a user runs it, and what it leaves in the workspace and in the registry."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import torch
from deltalake import write_deltalake
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

import inference
from conf.errors import InputError
from conf.settings import MODES
from conf.workspace import Workspace
from conf.writing import LOCK
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from inference.candidate.gate import Decision
from inference.candidate.incumbent import open_incumbent
from inference.candidate.measuring.evaluate import score_split
from inference.candidate.model_card import describe_model
from inference.candidate.registration import register
from inference.candidate.run import device_for
from inference.model.card_text import to_text
from inference.model.graphs import compile_graph, open_graph, properties_of
from inference.model.model_files import find_model
from inference.model.networks.fitted import CPU, torch_predict
from inference.model.registry import fetch_model
from inference.model.served_model import open_served
from inference.model.variants import open_variant
from tests.inference.conftest import REPOSITORY, ROWS
from training.network.checkpoint import BEST, Checkpoint
from training.record.store import fetch_checkpoint, use_store

# In a fresh process, for which nothing is installed that the registered model does not ask for.
ABSENT = ("torch", "torchvision", "pyspark", "nncf", "petastorm", "conf", "etl", "training", "inference")
LOAD_AND_PREDICT = """
import json, sys
for name in sys.argv[3:]:
    sys.modules[name] = None
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/chexscale@champion")
pixels = np.load(sys.argv[2])
table = model.predict(pixels)
both = model.predict(pixels, params={"maps": True})
print(json.dumps({
    "columns": list(table.columns), "answers": table.to_numpy().tolist(), "maps": both["maps"].shape,
    "same": bool((both["probabilities"] == table.to_numpy()[:, :-1]).all()),
}))
"""


@pytest.fixture(scope="module")
def first(workspace, run_register):
    """Bounds as wide as this test split is small: 128 images."""
    bounds = ("--inference.max_mean_drop=0.03", "--inference.max_finding_drop=0.06", "--inference.ten_crop=true")
    result = run_register(workspace, *bounds, own_process=True)
    assert result.code == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def second(first, workspace, run_register):
    """The same again with a gate that nothing passes, however careful, and with answers at an error rate."""
    result = run_register(workspace, "--inference.max_mean_drop=-1", "--inference.error_rate=0.2")
    assert result.code == 0, result.stderr
    return result


@pytest.fixture
def client(workspace):
    use_store(workspace)
    return mlflow.MlflowClient()


def test_first_run_says_what_it_did_and_what_is_next(first):
    for words in (
        "1/7",
        "7/7",
        "thumbnail LR",
        "Bright_Corner",
        "INT8, 95%",
        "heat map in box",
        "ms, p95",
        "Gate passed",
        "Never",
        "version 1 as @challenger, @champion",
    ):
        assert words in first.stdout
    assert first.stdout.strip().splitlines()[-1].startswith("Next: ")
    # Nothing but the progress bars of the splits.
    assert all(" split" in line for line in first.stderr.splitlines() if line)


def test_report_and_summary_are_strict_json_with_null_for_undefined(first, workspace):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    report = json.loads((workspace.model / "report.json").read_text(), parse_constant=refuse)
    assert report["data"] | {"positives": None} == {
        "split": "test",
        "delta_version": 0,
        "source": "planted, Delta version 0",
        "images": 128,
        "patients": 128,
        "positives": None,
    }
    assert report["test_auroc"]["int8"]["Never"] == {"value": None, "low": None, "high": None}
    mean = report["test_auroc"]["int8"]["mean"]
    assert mean["low"] < mean["value"] < mean["high"]
    assert set(report["test_auroc"]) >= {"fp16", "onnx", "int8_ten_crop"}
    assert abs(report["difference_to_fp32"]["onnx"]["mean"]["value"]) < 1e-4
    assert report["localisation"]["int8"]["Chequers"]["images"] > 20
    assert report["familiarity"]["int8"]["test_familiar"] > 0.9
    assert [attempt["name"] for attempt in report["attempts"]] == ["plain"]
    assert report["attempts"][0]["kept_in_fp32"] == []
    assert report["attempts_ended"] == ""
    summary = json.loads(workspace.summary.read_text(), parse_constant=refuse)
    assert set(summary["test_auroc"]) >= {"baseline", "torch", "fp32", "int8", "per_finding"}
    assert summary["test_auroc"]["int8"] == mean["value"]
    assert set(summary["latency_ms"]) == set(summary["throughput"]) == {"torch", "fp32", "fp16", "onnx", "int8"}
    assert summary["peak_memory_mb"]["register"] > 100


def test_workspace_holds_all_variants_and_the_figure_and_no_leftovers(first, workspace):
    graphs = [f"{name}/model.{part}" for name in ("fp32", "fp16", "int8") for part in ("xml", "bin")]
    pages = ("model_card.json", "model_card.md", "reporting.md")
    for path in (*graphs, "onnx/model.onnx", "torch/network.pt", "report.json", *pages):
        assert (workspace.model / path).stat().st_size > 0
    assert (workspace.figures / "test_auroc.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in workspace.root.glob(".*")] == [LOCK]


def test_run_of_the_training_got_metrics_report_and_figure(first, client, checkpoint):
    run = client.get_run(checkpoint.run_id)
    assert run.info.status == "FINISHED"
    assert 0.8 < run.data.metrics["test_auroc_mean_int8"] <= 1
    assert "test_auroc_int8_Bright_Corner" in run.data.metrics
    assert "test_auroc_int8_Never" not in run.data.metrics
    paths = {
        item.path for folder in ("inference", "figures") for item in client.list_artifacts(run.info.run_id, folder)
    }
    assert paths == {"inference/report.json", "figures/test_auroc.png"}


def test_a_run_stays_ended_while_its_model_is_logged(first, client, workspace, checkpoint, monkeypatch):
    before, seen = client.get_run(checkpoint.run_id).info, []

    def killed(**_):
        seen.append(client.get_run(checkpoint.run_id).info)
        raise ZeroDivisionError

    monkeypatch.setattr(mlflow.pyfunc, "save_model", killed)
    report = json.loads((workspace.model / "report.json").read_text())
    properties = properties_of(open_graph(workspace.model / "int8"))
    with pytest.raises(ZeroDivisionError):
        register(workspace, "chexscale", properties, workspace.model, report, Decision(False, [], None, {}, [], []))
    (info,) = seen
    assert (info.status, info.end_time, info.experiment_id) == ("FINISHED", before.end_time, before.experiment_id)


def test_a_model_of_scores_that_are_not_finite_has_a_card_too(first, workspace, splits):
    properties = properties_of(open_graph(workspace.model / "int8"))
    broken = compile_graph(open_graph(workspace.model / "int8"))

    def predict(pixels):
        answer = broken(pixels)
        return answer._replace(probabilities=np.full_like(answer.probabilities, np.nan))

    scored = score_split({"int8": predict}, splits["test"], 16, properties)
    report = json.loads((workspace.model / "report.json").read_text())
    described = describe_model(properties, Card.read(workspace.card), scored, report, 0, study={})
    assert described["subgroups"] is described["calibration_error"] is None
    assert set(described["thresholds"]["youden"]) == {"probability"}
    assert "| Chequers | " in to_text(described)


def test_its_checkpoint_starts_another_training(first, client, workspace, checkpoint):
    # Other tests of this process may have used a copy of this workspace, and MLflow remembers the folder of its run.
    _artifact_repos_cache.clear()
    client.log_artifact(checkpoint.run_id, str(workspace.checkpoints / BEST), "checkpoints")
    for address in ("models:/chexscale@challenger", "models:/chexscale/1"):
        fetched = Checkpoint.load(fetch_checkpoint(workspace, address))
        assert fetched.weights.keys() == checkpoint.weights.keys()
        assert all(torch.equal(fetched.weights[name], tensor) for name, tensor in checkpoint.weights.items())
    for absent in ("models:/chexscale@best", "models:/chexscale/99", "models:/nobody/1", "models:/chexscale"):
        with pytest.raises(InputError, match=f"no checkpoint of {absent} in .*mlflow.db .*look at the registry"):
            fetch_checkpoint(workspace, absent)


def test_lineage_names_each_image_and_what_the_training_began_with(first, workspace):
    program = [sys.executable, "inference/lineage.py", "--workspace", str(workspace.root), "1"]
    told = json.loads(subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout)
    names = {split: [f"{split}_{index:04}.png" for index in range(ROWS[split])] for split in ("train", "val")}
    assert {split: sorted(images) for split, images in told["images"].items()} == names
    same_table, published = told["ancestors"]
    assert same_table["images"] == told["images"]
    assert published == {"source": "imagenet", "images": None}
    assert (told["run_id"], told["delta_version"], told["commit"]) == (told["run_id"], 0, "0123abc")


def test_the_reporting_sheet_is_that_of_the_registered_model(first, workspace):
    program = [sys.executable, "inference/reporting.py", "--workspace", str(workspace.root), "1"]
    said = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert said == (fetch_model(workspace, "chexscale", 1) / "reporting.md").read_text()
    known, left = said.split("## What a person must still write")
    assert "| test split | 128 | 128 |" in known and "Every patient has one image" in known
    assert ", the best by the mean AUROC of the validation split" in known and "**Ethics**" in left
    program[-1] = "9"
    ended = subprocess.run(program, cwd=REPOSITORY, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "") and "no version or alias 9 of chexscale" in ended.stderr


def test_version_carries_lineage_gate_and_intended_use(first, client, checkpoint):
    version = client.get_model_version("chexscale", "1")
    assert version.run_id == version.tags["run_id"] == checkpoint.run_id
    assert (version.tags["delta_version"], version.tags["git_commit"]) == ("0", "0123abc")
    assert version.tags["gate"] == "passed"
    assert float(version.tags["test_auroc_int8"]) > 0.8
    assert "Research use only, not for clinical use" in version.description
    assert "Research use only, not for clinical use" in client.get_registered_model("chexscale").description


def test_signature_example_and_requirements(first, client):
    info = mlflow.models.get_model_info(client.get_model_version("chexscale", "1").source)
    assert info.signature.inputs.inputs[0].shape == (-1, 64, 64)
    assert info.signature.inputs.inputs[0].type == np.dtype("uint8")
    outputs = [column.name for column in info.signature.outputs]
    assert outputs == ["Bright_Corner", "Chequers", "Never", "distance"]
    model = mlflow.pyfunc.load_model("models:/chexscale/1")
    assert model.input_example.shape == (1, 64, 64)
    requirements = Path(mlflow.pyfunc.get_model_dependencies("models:/chexscale/1")).read_text().split()
    assert {line.split("==")[0] for line in requirements} == {"mlflow", "openvino", "numpy", "pandas"}


def test_champion_predicts_in_a_process_without_torch(first, workspace, test_images, tmp_path):
    np.save(tmp_path / "pixels.npy", test_images)
    store = f"sqlite:///{workspace.tracking_db}"
    command = [sys.executable, "-c", LOAD_AND_PREDICT, store, tmp_path / "pixels.npy", *ABSENT]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr
    answer = json.loads(result.stdout)
    served = open_served(find_model(workspace, "chexscale"))
    assert answer["columns"] == [*served.properties.findings, "distance"]
    assert answer["maps"] == [5, 3, 4, 4]
    assert answer["same"]
    expected = served.predict(test_images)
    np.testing.assert_allclose(np.array(answer["answers"])[:, :-1], expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(np.array(answer["answers"])[:, -1], expected.distances, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_the_champion_answers_alike(mode, first, workspace, test_images):
    served = open_served(find_model(workspace, "chexscale"), mode, num_threads=1)
    assert (served.version, served.mode, served.folder.name) == (1, mode, "model")
    expected = open_served(find_model(workspace, "chexscale"), "fp32").predict(test_images)
    # 8 bits move this small network's probabilities by up to 0.3.
    tolerance = 0.1 if mode == "int8" else 1e-3
    assert np.abs(served.predict(test_images).probabilities - expected.probabilities).mean() < tolerance


def test_what_the_registry_lacks_is_an_input_error(first, workspace):
    for which, mode in (("nobody", "int8"), ("99", "int8"), ("champion", "fp8")):
        with pytest.raises(InputError, match=f"no version or alias {which} of chexscale|mode is 'fp8'"):
            open_served(find_model(workspace, "chexscale", which), mode)


@pytest.mark.parametrize("content", [None, "not a graph"])
def test_a_champion_that_cannot_be_opened_does_not_stop_a_candidate(content, first, workspace):
    file = fetch_model(workspace, "chexscale", 1) / "int8" / "model.xml"
    whole = file.read_bytes()
    file.unlink()
    try:
        if content:
            file.write_text(content)
        champion = open_incumbent(workspace, "chexscale", TableVersion.of(workspace))
    finally:
        file.write_bytes(whole)
    assert (champion.version, champion.predict) == (1, None)
    assert "python inference/register.py" in champion.why_not
    assert open_incumbent(workspace, "chexscale", TableVersion.of(workspace)).predict


def test_a_champion_that_saw_other_pixels_is_not_compared_with(first, workspace):
    table = TableVersion.of(workspace)
    card = table.card
    for key, value in (("square", "stretch"), ("intensity", "clahe"), ("grey_bits", 12)):
        other = replace(table, card=replace(card, settings=card.settings | {key: value}))
        champion = open_incumbent(workspace, "chexscale", other)
        assert champion.predict is None
        assert f"etl.{key}" in champion.why_not


def test_a_champion_that_was_trained_on_test_patients_is_not_compared_with(first, workspace, tmp_path):
    card = Card.read(workspace.card)
    shutil.copytree(workspace.shards, tmp_path / "shards")
    rows = ds.dataset(tmp_path / "shards", partitioning="hive").to_table().to_pandas()
    rows["split"] = rows["split"].replace({"train": "test", "test": "train"})
    write_deltalake(tmp_path / "shards", pa.Table.from_pandas(rows, preserve_index=False), mode="overwrite")
    moved = TableVersion(str(tmp_path / "shards"), replace(card, delta_version=1))
    champion = open_incumbent(workspace, "chexscale", moved)
    assert champion.predict is None
    assert champion.why_not.startswith(f"it was trained on {ROWS['train']} of the test split's patients")


def test_pyfunc_refuses_other_shapes_and_types(first, client, test_images):
    model = mlflow.pyfunc.load_model("models:/chexscale/1")
    for wrong in (test_images.astype(np.float32), test_images[:, :32, :32]):
        with pytest.raises(mlflow.exceptions.MlflowException):
            model.predict(wrong)


def test_answers_at_an_error_rate_are_measured_in_report_card_and_console_of_their_model_alone(
    first, second, client, workspace
):
    parts = {number: Path(find_model(workspace, "chexscale", number).folder) for number in ("1", "2")}
    before, after = (json.loads((folder / "report.json").read_text()) for folder in parts.values())
    assert "unsure" not in before and set(after["unsure"]) == set(MODES)
    card = json.loads((parts["2"] / "model_card.json").read_text())
    assert card["unsure"] == after["unsure"]["int8"] and card["unsure"]["error_rate"] == 0.2
    for name in MODES:
        unsure = open_variant(name, parts["2"] / name)[1].unsure
        measured = after["unsure"][name]["findings"]
        assert [facts["absent_below"] for facts in measured.values()] == unsure["absent_below"]
        assert not open_variant(name, parts["1"] / name)[1].unsure
    text = (parts["2"] / "model_card.md").read_text()
    assert "error rate 20%" in text and "has also chosen the epoch" in text
    assert "| Never | never |" in text and "error rate" not in (parts["1"] / "model_card.md").read_text()
    assert "INT8 answers at an error rate of 0.2" in second.stdout and "Never: 0 patients with it" in second.stdout
    assert "error rate" not in first.stdout


def test_an_error_rate_that_the_validation_split_is_too_small_for_is_refused_at_once(first, workspace, run_register):
    refused = run_register(workspace, "--inference.error_rate=0.01")
    assert refused.code == 2 and "needs 99 patients" in refused.stderr and "1/7" not in refused.stdout


def test_refused_version_is_challenger_and_champion_stays(second, client, workspace):
    assert "Gate failed" in second.stdout
    assert "version 2 as @challenger\n" in second.stdout
    assert "@champion stays version 1" in second.stdout
    assert client.get_model_version_by_alias("chexscale", "challenger").version == 2
    assert client.get_model_version_by_alias("chexscale", "champion").version == 1
    assert client.get_model_version("chexscale", "2").tags["gate"] == "failed"
    registry = json.loads(workspace.summary.read_text())["registry"]
    assert (registry["version"], registry["aliases"], registry["gate_passed"]) == (2, ["challenger"], False)


def test_a_gate_that_even_fp32_fails_is_tried_with_one_way_and_says_why(second, workspace):
    said = (
        "only one way is tried, because the gate would refuse INT8 even with exactly FP32's scores: mean AUROC falls "
        "by 0.0000 (up to 0.0000), but at most -1.0 is allowed (inference.max_mean_drop)"
    )
    assert said in second.stdout.replace("-0.0000", "0.0000")
    report = json.loads((workspace.model / "report.json").read_text())
    assert [attempt["name"] for attempt in report["attempts"]] == ["plain"]
    assert said in report["attempts_ended"].replace("-0.0000", "0.0000")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_torch_is_measured_on_the_cpu_unless_a_gpu_is_demanded(monkeypatch):
    # A launcher's variable, which is not for this command.
    monkeypatch.setenv("HOROVOD_RANK", "3")
    assert device_for("auto") == device_for("cpu") == CPU
    with pytest.raises(InputError, match="torch sees no GPU"):
        device_for("cuda")


def test_a_gpu_that_torch_sees_is_used_unless_the_cpu_is_demanded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_for("auto") == device_for("cuda") == torch.device("cuda", 0)
    assert device_for("cpu") == CPU


def test_torch_on_another_device_leaves_the_network_where_it_is(served, test_images):
    before = {name: tensor.device for name, tensor in served.network.state_dict().items()}
    # The meta device computes shapes alone, which shows that pixels and weights meet there.
    with pytest.raises(NotImplementedError, match="meta"):
        torch_predict(served.network, torch.device("meta"))(test_images)
    assert {name: tensor.device for name, tensor in served.network.state_dict().items()} == before


def _without(part: str):
    return lambda root: (root / part).unlink()


def _truncate(root: Path) -> None:
    path = root / "checkpoints" / BEST
    path.write_bytes(path.read_bytes()[:1000])


def _other_vocabulary(root: Path) -> None:
    card = json.loads((root / "card.json").read_text())
    (root / "card.json").write_text(json.dumps(card | {"findings": ["Mass", "Nodule", "Hernia"]}))


def _table_made_anew(root: Path) -> None:
    card = json.loads((root / "card.json").read_text())
    (root / "card.json").write_text(json.dumps(card | {"delta_table_id": "another"}))


def _other_run(root: Path) -> None:
    path = root / "checkpoints" / BEST
    Checkpoint(**{**vars(Checkpoint.load(path)), "run_id": "0" * 32}).save(path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("checkpoints/best.pt"), "run `python training/train.py`"),
        (_truncate, "not a readable checkpoint"),
        (_without("card.json"), "no dataset card"),
        (_without("mlflow.db"), "no MLflow store"),
        (_other_vocabulary, "Hernia"),
        (_table_made_anew, "made anew since this checkpoint"),
        (_other_run, "run " + "0" * 32),
    ],
)
def test_bad_input_ends_with_code_2_and_leaves_nothing(damage, message, workspace, tmp_path, run_register):
    root = tmp_path / "workspace"
    shutil.copytree(
        workspace.root, root, ignore=shutil.ignore_patterns("model", "figures", "summary.json", "mlartifacts")
    )
    damage(root)
    before = sorted(root.rglob("*"))
    result = run_register(Workspace.at(str(root)))
    assert result.code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(root.rglob("*")) == before


def test_no_module_hides_a_library_when_a_script_of_the_folder_runs():
    folder = Path(inference.__file__).parent
    elsewhere = [path for path in sys.path if path and Path(path) != folder]
    hidden = [file.stem for file in folder.glob("*.py") if PathFinder.find_spec(file.stem, elsewhere)]
    assert [name for name in hidden if name != "__init__"] == []


def test_a_disk_that_is_full_when_the_model_is_registered_is_named(workspace, run_register, tmp_path):
    needed = [workspace.shards, workspace.checkpoints, workspace.card, workspace.tracking_db]
    size = sum(file.stat().st_size for place in needed for file in (place, *place.rglob("*")) if file.is_file())
    disk = tmp_path / "disk"
    disk.mkdir()
    # Room for model/ and figures/, which come before, but not for MLflow's copy of them.
    room = f"size={(size + 1_700_000) // 1024}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", room, "none", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        for place in needed:
            (shutil.copytree if place.is_dir() else shutil.copy)(place, disk / place.name)
        ended = run_register(Workspace.at(str(disk)), "--inference.max_mean_drop=1", "--inference.max_finding_drop=1")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert "7/7" in ended.stdout
    assert ended.code == 2
    assert ended.stderr.splitlines()[-1].startswith(f"error: no space left for {disk}"), ended.stderr
    assert "Traceback" not in ended.stderr
