"""The stage as people type it, under each launcher, on a small table."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import mlflow
import pytest
import torch

from conf.arguments import Resume
from conf.errors import InputError
from conf.settings import Etl, Settings, Training
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from tests.conftest import SIZE_PX, make_card, write_small_table
from tests.in_process import Ended, run_here
from tests.training.commands import BIN, LAUNCHERS, PROJECT, SMALL, command_of, train, train_here
from training.loop.task import Task
from training.network.checkpoint import BEST, Checkpoint
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split
from training.record.store import use_store
from training.start.prepare import check_same_training, find_table, prepare

ALONE = Topology.detect("cpu", {})


def test_ranks_other_than_0_import_nothing_that_only_rank_0_needs():
    loaded = "import sys, training.start.run; print({'mlflow', 'sklearn', 'matplotlib', 'pyspark'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", loaded], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"


def test_a_step_takes_the_memory_that_the_one_before_has_freed():
    count = """
import resource
import numpy as np
from training.ranks.memory import keep_freed_memory
keep_freed_memory()
for _ in range(11):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(4_000_000) for _ in range(3)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    finished = subprocess.run([sys.executable, "-c", count], cwd=PROJECT, capture_output=True, text=True, check=True)
    # 96 MB are 23,438 pages.
    assert int(finished.stdout) < 1000


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "ranks"), [("none", 1), ("torchrun", 2)])
def test_it_trains_alone_and_with_another_rank(workspace, launcher, ranks, tmp_path, monkeypatch):
    """test_pipeline.py trains under horovodrun."""
    # Only rank 0 has the workspace.
    workspace = Workspace.at(str(workspace.root.rename(tmp_path / "0")))
    own = [*LAUNCHERS["torchrun"], "--no-python", "sh", "-c", f'exec "$@" --workspace {tmp_path}/$RANK', "sh"]
    monkeypatch.setitem(LAUNCHERS, "torchrun", [*own, BIN / "python"])
    if launcher == "none":
        command = command_of(workspace, launcher, {**SMALL, "tensorboard": "true"})
        finished = run_here(PROJECT / command[1], *command[2:])
    else:
        done = train(workspace, launcher, tensorboard="true")
        finished = Ended(done.returncode, done.stdout, done.stderr)
    assert finished.code == 0, finished.stderr
    assert not (tmp_path / "1").exists()
    assert "Warning" not in finished.stderr
    assert finished.stdout.count("Best epoch") == 1, "only rank 0 prints"
    assert re.findall(r"training: (.+) of \1 in ", finished.stderr) == ["106"]
    summary = json.loads(workspace.summary.read_text())["training"]
    assert (summary["launcher"], summary["world_size"], summary["epochs"]) == (launcher, ranks, 2)

    use_store(workspace)
    run = mlflow.get_run(summary["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["world_size"] == str(ranks)
    taken, why = re.findall(r"Precision (\w+): the CPU has (no )?AMX\n", finished.stdout)[0]
    assert run.data.params["training.precision"] == taken == ("fp32" if why else "bf16")
    assert run.data.tags["delta_version"] == "0"
    (dataset,) = run.inputs.dataset_inputs
    assert dataset.dataset.source_type == "delta_table"
    assert json.loads(dataset.dataset.source)["path"] == str(workspace.shards)
    tags = {tag.key: tag.value for tag in dataset.tags}
    assert tags["card_sha256"] == hashlib.sha256(workspace.card.read_bytes()).hexdigest()
    assert tags["delta_version"] == "0"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "step_loss")
    # 53 rows in row groups of 5: one rank needs 7 steps of 8 images, of two ranks the larger needs 4.
    assert len(history) == 2 * {1: 7, 2: 4}[ranks]
    (events,) = (workspace.events / run.info.run_id / "steps").iterdir()
    assert events.name.startswith("events.out.tfevents"), "only rank 0 writes"
    artifacts = {
        path.relative_to(workspace.artifacts / run.info.run_id / "artifacts").as_posix()
        for path in workspace.artifacts.rglob("*")
        if path.is_file()
    }
    assert {
        "settings.yaml",
        "card.json",
        "figures/training.png",
        "figures/val_roc.png",
        "checkpoints/best.pt",
    } <= artifacts

    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    best = max(metric.value for metric in mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_auroc_mean"))
    assert checkpoint.val_auroc == pytest.approx(best)
    assert checkpoint.run_id == run.info.run_id
    assert torch.isfinite(torch.cat([weight.flatten().float() for weight in checkpoint.weights.values()])).all()


@pytest.mark.usefixtures("undrawn")
def test_the_epoch_that_was_asked_for_is_kept_and_patience_ends_the_training(workspace):
    train_here(workspace, epochs=25, learning_rate=0.002, schedule="constant", choose_by="loss", patience=3)
    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    use_store(workspace)
    client = mlflow.MlflowClient()
    losses, aurocs = (
        [point.value for point in client.get_metric_history(checkpoint.run_id, name)]
        for name in ("val_loss", "val_auroc_mean")
    )
    best = losses.index(min(losses)) + 1
    assert aurocs.index(max(aurocs)) + 1 != best, "these would tell nothing"
    assert checkpoint.epoch == best
    assert len(losses) == best + 3 < 25


def test_training_before_the_etl_says_what_to_run(tmp_path):
    finished = run_here(PROJECT / "training/train.py", "--workspace", tmp_path / "empty")
    assert finished.code == 2
    assert "run `spark-submit etl/preprocess.py`" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("changes", [{"model": "alexnet"}, {"model": "resnet18", "batch_size": 1}])
def test_a_model_that_fails_on_these_images_is_refused_before_a_run_is_started(small_table, changes):
    workspace, *_ = small_table
    settings = Settings(str(workspace.root), training=Training(**{"size_px": SIZE_PX, **changes}))
    with pytest.raises(InputError, match=f"{changes['model']} fails in the smallest step"):
        prepare(settings, workspace, TableVersion.of(workspace), ALONE)


@pytest.mark.parametrize("names", [["Edema", "edema"], ["Edema", "mean"]])
def test_a_table_of_an_older_release_whose_findings_cannot_be_told_apart_is_refused(
    copied_table, small_table, tmp_path, names
):
    workspace = copied_table(tmp_path / "workspace")
    replace(small_table[1], findings=names).write(workspace.card)
    settings = Settings(str(workspace.root), training=Training(model="simple_cnn", size_px=SIZE_PX))
    with pytest.raises(InputError, match=f"'{names[1]}' .*rename .*; then run the ETL again"):
        prepare(settings, workspace, TableVersion.of(workspace), ALONE)


def test_a_table_of_one_grey_is_refused(copied_table, small_table, tmp_path):
    workspace = copied_table(tmp_path / "workspace")
    replace(small_table[1], pixel_std={f"image_{SIZE_PX}": 0.0}).write(workspace.card)
    settings = Settings(str(workspace.root), training=Training(model="simple_cnn", size_px=SIZE_PX))
    with pytest.raises(InputError, match="every pixel of the train split is 127.*dataset card"):
        prepare(settings, workspace, TableVersion.of(workspace), ALONE)


def prepare_boxed(small_table, workspace: Workspace, boxed: dict, **changes) -> None:
    replace(small_table[1], boxed=boxed).write(workspace.card)
    training = Training(**{"model": "simple_cnn", "size_px": SIZE_PX, "box_weight": 1.0, **changes})
    prepare(Settings(str(workspace.root), training=training), workspace, TableVersion.of(workspace), ALONE)


@pytest.mark.parametrize(
    ("boxed", "changes", "message"),
    [
        ({"train": 0, "val": 0, "test": 984}, {}, "984 films of test .* would leak: split .*--etl.split hashed"),
        ({"train": 0, "val": 0, "test": 0}, {}, "no film has any: add boxes"),
        ({}, {}, "does not count boxes, .* older release .* --rebuild"),
        ({"train": 9}, {"model": "vgg11"}, "vgg11 has maps of a single cell at 32 pixels: choose a larger"),
    ],
)
def test_a_weight_of_boxes_that_none_can_have_is_refused(copied_table, small_table, tmp_path, boxed, changes, message):
    with pytest.raises(InputError, match=message):
        prepare_boxed(small_table, copied_table(tmp_path / "workspace"), boxed, **changes)


def test_a_weight_of_lungs_without_masks_is_refused(copied_table, small_table, tmp_path):
    workspace = copied_table(tmp_path / "workspace")
    training = Training(model="simple_cnn", size_px=SIZE_PX, lung_weight=1.0)
    with pytest.raises(InputError, match="needs masks of lungs .* it has none: name their folder by --etl.masks"):
        prepare(Settings(str(workspace.root), training=training), workspace, TableVersion.of(workspace), ALONE)


class Pair:
    """Two ranks, of which the other one has these settings changed, or finds these row groups."""

    def __init__(self, row_groups: list | None = None, **changes):
        self.row_groups, self.changes = row_groups, changes

    def gather(self, own):
        row_groups, settings = own
        return [own, (self.row_groups or row_groups, settings | self.changes)]


def test_ranks_with_other_settings_or_files_are_told():
    settings, table = Settings(training=Training(epochs=3)), TableVersion("/data/t", make_card(["A"], [1], [2]))
    split = Split("val", [], [2], SIZE_PX)
    task = Task(settings, Workspace.of(settings), table, Plan(split, 1, 1, 1), split, split, None)
    check_same_training(Pair(epochs=3), task, Resume.NO)
    with pytest.raises(InputError, match="rank 1 has training.epochs 4, rank 0 3: start all with the same"):
        check_same_training(Pair(epochs=4), task, Resume.NO)
    with pytest.raises(InputError, match="/data/t is not the same .* rank 1 finds val: 3 images in 2 row groups.* 0 "):
        check_same_training(Pair([[1, 2], [2], [2]]), task, Resume.NO)


def test_a_step_of_more_images_than_there_are_is_refused(small_table):
    settings = Settings(str(small_table[0].root), training=Training(model="simple_cnn", size_px=SIZE_PX, batch_size=54))
    with pytest.raises(
        InputError, match=r"batch_size \(54\) \* ranks \(1\) = 54 images per step, and the train split has 53"
    ):
        prepare(settings, small_table[0], TableVersion.of(small_table[0]), ALONE)


def test_a_finding_of_which_nothing_can_be_learned_is_named(copied_table, small_table, tmp_path, capsys):
    workspace, card = copied_table(tmp_path / "workspace"), small_table[1]
    card = replace(card, positives={**card.positives, "train": {"Bright": 9, "Coin": 0}})
    card.write(workspace.card)
    settings = Settings(str(workspace.root), training=Training(model="simple_cnn", size_px=SIZE_PX))
    prepare(settings, workspace, TableVersion.of(workspace), ALONE)
    assert "Cannot learn Coin: " in capsys.readouterr().out
    replace(card, positives={**card.positives, "val": {"Bright": 0, "Coin": 0}}).write(workspace.card)
    with pytest.raises(
        InputError, match="no finding has both positives .* among the 9 images of the val split.*etl.seed"
    ):
        prepare(settings, workspace, TableVersion.of(workspace), ALONE)
    unknown = {split: {"Bright": 0, "Coin": 0} for split in card.known}
    replace(card, known=unknown, positives=unknown).write(workspace.card)
    with pytest.raises(InputError, match="no image of the table has a known label: write 1 "):
        prepare(settings, workspace, TableVersion.of(workspace), ALONE)


def test_a_workspace_without_a_card_looks_for_the_table_at_etl_table(tmp_path):
    settings = Settings(str(tmp_path / "empty"), etl=Etl(table=str(tmp_path / "elsewhere")))
    with pytest.raises(InputError, match="no table of this program's version at .*/elsewhere/shards"):
        find_table(settings, Workspace.of(settings), Collectives(ALONE))


@pytest.mark.slow
def test_more_ranks_than_row_groups_end_with_rank_0s_message_alone(tmp_path):
    workspace, *_ = write_small_table(tmp_path, rows_per_row_group=1000)
    finished = train(workspace, "horovodrun")
    assert finished.returncode != 0
    said = finished.stdout + finished.stderr
    assert "error: 2 ranks and 1 row group in the train split" in said
    assert said.count("error: ") == 1 and "rank 1 on" not in said, said
    assert not workspace.tracking_db.exists()
