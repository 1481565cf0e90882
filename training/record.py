"""What rank 0 keeps of a training: MLflow run, best checkpoint, figures, summary.

Only rank 0 imports this module: mlflow, scikit-learn and matplotlib take seconds of a core to import, which eight
ranks on one host would spend eight times.
"""

import time

import numpy as np
import torch
from torch import Tensor

from conf.settings import Settings, with_same_arguments
from conf.workspace import Workspace, update_summary
from etl.schema import Card
from training.checkpoint import BEST, Checkpoint
from training.figures import draw_history, draw_roc
from training.loop import EVALUATION_BATCH_SIZE, EpochResult, Predictions
from training.loss import masked_bce
from training.metrics import auroc_per_finding, mean_auroc
from training.models import XrayClassifier
from training.readers import Split, read_batches
from training.topology import Topology
from training.tracking import TrackedRun


class Record:
    """The story of one training; a context manager around all its epochs."""

    def __init__(self, settings: Settings, card: Card, model: XrayClassifier, pos_weight: Tensor, topology: Topology):
        self.workspace = Workspace.at(settings.workspace)
        self.settings, self.card, self.model, self.topology = settings, card, model, topology
        self.pos_weight = pos_weight
        self.losses: list[float] = []
        self.epochs: list[dict[str, float]] = []
        self.run = TrackedRun(self.workspace, settings, card, topology)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.run.end(error)

    def add_epoch(self, result: EpochResult, predictions: Predictions) -> str:
        """Tracks an epoch, keeps its checkpoint where it is the best so far, and describes it in one line."""
        metrics = self._measure(result, predictions)
        self.run.log_steps("step_loss", len(self.losses), result.losses)
        self.losses += result.losses
        self.epochs.append(metrics)
        self.run.log_epoch(len(self.epochs), metrics)
        if metrics["val_auroc_mean"] == self.best_auroc:
            self._checkpoint().save(self.workspace.checkpoints / BEST)
            title = f"Validation split, Delta version {self.card.delta_version}, epoch {len(self.epochs)}"
            roc = self.workspace.figures / "val_roc.png"
            draw_roc(roc, predictions.labels, predictions.logits, self.card.findings, title)
        return (
            f"epoch {len(self.epochs)}/{self.settings.training.epochs}: training loss {metrics['train_loss']:.3f}, "
            f"validation loss {metrics['val_loss']:.3f}, mean AUROC {metrics['val_auroc_mean']:.3f}, "
            f"{metrics['images_per_s']:.0f} images/s"
        )

    @property
    def best_auroc(self) -> float:
        """Highest mean AUROC on the validation split so far."""
        return max(epoch["val_auroc_mean"] for epoch in self.epochs)

    def finish(self, peaks_mb: list[float], val_split: Split) -> None:
        """Logs figures and checkpoint, writes the summary's training part and says what comes next.

        peaks_mb: most resident memory of each rank. val_split: read once more, to time the reader alone.
        """
        history = self.workspace.figures / "training.png"
        draw_history(history, self.losses, self.epochs, f"Delta version {self.card.delta_version}")
        self.run.log_figure(history)
        self.run.log_figure(self.workspace.figures / "val_roc.png")
        best = self.workspace.checkpoints / BEST
        self.run.log_checkpoint(best)
        update_summary(
            self.workspace,
            training={
                "launcher": self.topology.launcher,
                "world_size": self.topology.world_size,
                "epochs": len(self.epochs),
                "images_per_s": round(self._mean("images_per_s"), 1),
                "reader_images_per_s": round(reading_speed(val_split), 1),
                "waiting_fraction": round(self._mean("waiting_fraction"), 4),
                "val_auroc": round(self.best_auroc, 4),
                "run_id": self.run.run_id,
            },
            peak_memory_mb={"training_rank": round(max(peaks_mb))},
        )
        print(f"Best mean validation AUROC {self.best_auroc:.3f}: {best}")
        print("Next: " + with_same_arguments("python inference/register.py"))

    def _mean(self, metric: str) -> float:
        return float(np.mean([epoch[metric] for epoch in self.epochs]))

    def _measure(self, result: EpochResult, predictions: Predictions) -> dict[str, float]:
        """Loss and AUROC per finding on the validation split, loss and speed of training."""
        logits, labels = torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels)
        aurocs = auroc_per_finding(predictions.labels, predictions.logits)
        return {
            "train_loss": float(np.mean(result.losses)),
            "val_loss": masked_bce(logits, labels, self.pos_weight).item(),
            "val_auroc_mean": mean_auroc(aurocs),
            "images_per_s": result.images_per_s,
            "waiting_fraction": result.waiting_fraction,
            **{f"val_auroc_{name}": float(auroc) for name, auroc in zip(self.card.findings, aurocs, strict=True)},
        }

    def _checkpoint(self) -> Checkpoint:
        """The model as it is now, with its lineage."""
        return Checkpoint(
            weights={name: tensor.cpu() for name, tensor in self.model.state_dict().items()},
            model=self.settings.training.model,
            findings=self.card.findings,
            size_px=self.settings.training.size_px,
            pixel_mean=float(self.model.pixel_mean),
            pixel_std=float(self.model.pixel_std),
            epoch=len(self.epochs),
            val_auroc=self.epochs[-1]["val_auroc_mean"],
            delta_table_id=self.card.delta_table_id,
            delta_version=self.card.delta_version,
            run_id=self.run.run_id,
            commit=self.run.commit,
            settings=self.settings.to_dict(),
        )


def reading_speed(split: Split) -> float:
    """Images/s of the reader alone, one process, over a whole split."""
    started = time.perf_counter()
    images = sum(len(batch.labels) for batch in read_batches(split, EVALUATION_BATCH_SIZE))
    return images / (time.perf_counter() - started)
