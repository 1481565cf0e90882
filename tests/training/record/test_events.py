"""TensorBoard's event files hold what MLflow has, each point once."""

import sys
import time
from pathlib import Path

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent

from conf.arguments import Resume
from conf.errors import InputError
from conf.settings import Settings, Training
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from tests.conftest import SIZE_PX
from tests.training.commands import train_here
from training.network.checkpoint import LAST
from training.ranks.topology import Topology
from training.record.events import EPOCHS, STEPS, TEST
from training.record.record import Record
from training.record.store import use_store
from training.start.prepare import prepare

pytestmark = pytest.mark.usefixtures("undrawn")


class Killed(BaseException):
    """Ends a training as SIGKILL does: nothing after it is done."""


def run_folder(workspace: Workspace) -> Path:
    (folder,) = workspace.events.iterdir()
    return folder


def read(folder: Path) -> dict[str, list[ScalarEvent]]:
    """Metric -> its points, as TensorBoard shows them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {name: events.Scalars(name) for name in events.Tags()["scalars"]}


def test_they_hold_the_points_of_mlflow(workspace, capsys):
    train_here(workspace, tensorboard="true")
    folder = run_folder(workspace)
    assert f"Event files for TensorBoard: {folder}" in capsys.readouterr().out
    use_store(workspace)
    client, run = mlflow.MlflowClient(), mlflow.get_run(folder.name)
    shown = {name: points for part in (STEPS, EPOCHS, TEST) for name, points in read(folder / part).items()}
    assert set(shown) == {name for name in run.data.metrics if not name.startswith("system/")}
    for name, points in shown.items():
        kept = sorted(client.get_metric_history(run.info.run_id, name), key=lambda point: point.step)
        assert [point.step for point in points] == [point.step for point in kept]
        assert [point.value for point in points] == pytest.approx([point.value for point in kept])
        assert [point.wall_time for point in points] == pytest.approx([point.timestamp / 1000 for point in kept])
    assert set(read(folder / STEPS)) == {"step_loss"} and len(shown["step_loss"]) == 14
    assert [point.step for point in shown["val_auroc_mean"]] == [1, 2]


@pytest.mark.parametrize("killed_in", [1, 2])
def test_a_resumed_training_appends_and_doubles_no_point(workspace, monkeypatch, killed_in):
    # Killed after the epoch was logged and before its state was saved, so that the epoch is trained again.
    save = Record.save

    def killed(record: Record, epoch: int, step: int, state: dict) -> None:
        if (epoch, step) == (killed_in, 0):
            raise Killed
        save(record, epoch, step, state)

    monkeypatch.setattr(Record, "save", killed)
    changes = {"tensorboard": "true", "epochs": 3, "checkpoint_steps": 3}
    with pytest.raises(Killed):
        train_here(workspace, **changes)
    monkeypatch.undo()
    assert (workspace.checkpoints / LAST).exists()
    folder = run_folder(workspace)
    before = read(folder / EPOCHS)["val_loss"]
    # TensorBoard reads a folder's files in the order of their names. A name begins with the second it was made in, and
    # files of one process and one second are ordered by a counter as text: 10 comes before 9.
    killed_at = int(time.time())
    while int(time.time()) == killed_at:
        time.sleep(0.01)
    train_here(workspace, resume=Resume.YES, **changes)
    assert run_folder(workspace) == folder
    losses, epochs = read(folder / STEPS)["step_loss"], read(folder / EPOCHS)["val_loss"]
    assert [point.step for point in losses] == list(range(21))
    assert [point.step for point in epochs] == [1, 2, 3]
    # The points before the saved state are unchanged.
    assert epochs[: killed_in - 1] == before[: killed_in - 1]
    assert epochs[killed_in - 1].wall_time > before[killed_in - 1].wall_time


def test_without_the_package_nothing_begins(small_table, monkeypatch):
    workspace = small_table[0]
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    settings = Settings(str(workspace.root), training=Training(size_px=SIZE_PX, tensorboard=True))
    with pytest.raises(InputError, match="is not installed: run `make setup`, or `pip install tensorboard`"):
        prepare(settings, workspace, TableVersion.of(workspace), Topology.detect("cpu", {}))
