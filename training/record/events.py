"""TensorBoard's event files of a training, beside its MLflow run. The one owner of torch.utils.tensorboard."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from conf.disks import named_if_full
from conf.workspace import Workspace

STEPS, EPOCHS, TEST = "steps", "epochs", "test"
"""folders of the metrics of each step, of each epoch and of the test split; TensorBoard shows each as a run"""


def events_folder(workspace: Workspace, run_id: str) -> Path:
    """The folder of a run's event files."""
    return workspace.events / run_id


class EventFiles:
    """The event files of one run, with the points that MLflow gets.

    Steps and epochs are kept apart, because a resumed training repeats what came after its saved state, and TensorBoard
    hides all older points of a folder from the step on at which a newer file begins.
    """

    def __init__(self, folder: Path, next_step: int = 0, next_epoch: int = 1):
        """next_step, next_epoch: the first ones that follow; the folder's older points from there on are hidden."""
        self.folder = folder
        starts = {STEPS: next_step, EPOCHS: next_epoch, TEST: 0}
        with named_if_full(folder):
            self._writers = {
                name: SummaryWriter(str(folder / name), purge_step=start) for name, start in starts.items()
            }

    def add(self, name: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Adds (metric, value, milliseconds, step) of each point. name: STEPS, EPOCHS or TEST."""
        writer = self._writers[name]
        with named_if_full(self.folder):
            for metric, value, time_ms, step in points:
                writer.add_scalar(metric, value, step, walltime=time_ms / 1000)
            writer.flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
