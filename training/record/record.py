"""What rank 0 keeps of a training: the MLflow run, the best checkpoint, figures and summary.

Only rank 0 imports this module: mlflow, scikit-learn and matplotlib take seconds of a core to import, which eight
ranks on one host would spend eight times.
"""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import torch

from conf.arguments import with_same_settings
from conf.disks import named_if_full
from conf.programs import versions_of
from conf.workspace import update_summary
from training.loop.stages import stages_of
from training.loop.task import Task
from training.loop.trainer import EVALUATION_BATCH_SIZE, EpochResult, Trainer
from training.measures.metrics import auroc_per_finding, mean_over_findings, top_k_hits
from training.measures.predictions import Predictions
from training.network.checkpoint import BEST, LAST, Checkpoint, State
from training.ranks.topology import Topology
from training.reading.batches import read_batches
from training.reading.plan import Split
from training.record.evaluation import FIGURES, evaluate
from training.record.figures import draw_history, draw_roc
from training.record.tracking import TrackedRun

if TYPE_CHECKING:
    from training.record.events import EventFiles

TRAINED_WITH = ("torch", "torchvision", "horovod", "petastorm", "pyarrow", "numpy", "timm")


class Record:
    """The record of one training; a context manager around all its epochs."""

    def __init__(
        self,
        task: Task,
        topology: Topology,
        pos_weight: np.ndarray,
        interrupted: State | None,
    ):
        """pos_weight: (findings,), the weights of the loss. interrupted: the state from which the training resumes."""
        self.task, self.topology, self.pos_weight = task, topology, pos_weight
        self.workspace, self.settings, self.card = task.workspace, task.settings, task.card
        self.stages = stages_of(task.settings.training)
        self.losses: list[float] = list(interrupted.all_losses) if interrupted else []
        self.epochs: list[dict[str, float]] = list(interrupted.epochs) if interrupted else []
        self.ancestors = interrupted.ancestors if interrupted else task.ancestors
        self.stopped = False
        run_id, stage_ids = (interrupted.run_id, interrupted.stage_run_ids) if interrupted else (None, [])
        with named_if_full(task.workspace.store):
            self.run = TrackedRun(task.workspace, task.settings, task.table, topology, run_id=run_id)
            try:
                self.run.plan_stages(self.stages, stage_ids)
                if self.settings.training.tensorboard:
                    self.run.events = self._event_files()
            except BaseException as error:
                self.run.end(type(error))
                raise

    def _event_files(self) -> "EventFiles":
        # Imported here, because it takes most of a second, and few trainings need it.
        from training.record.events import EventFiles, events_folder

        folder = events_folder(self.workspace, self.run.run_id)
        print(f"Event files for TensorBoard: {folder}", flush=True)
        return EventFiles(folder, next_step=len(self.losses), next_epoch=len(self.epochs) + 1)

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, error: type[BaseException] | None, *_) -> None:
        self.run.end(error or (KeyboardInterrupt if self.stopped else None))
        if error is None and not self.stopped:
            # Last: if rank 0 is killed before, the other ranks can still continue from this state.
            (self.workspace.checkpoints / LAST).unlink(missing_ok=True)

    def begin_stage(self, index: int, trainer: Trainer) -> None:
        """Counts the following epochs as this stage's."""
        self.index, self.trainer, self.model = index, trainer, trainer.model
        self.run.begin_stage(index)

    def add_epoch(self, result: EpochResult, predictions: Predictions) -> str:
        """Tracks an epoch, keeps its checkpoint if it is the best so far, and describes it in one line."""
        metrics = self._measure(result, predictions)
        self.run.log_steps("step_loss", len(self.losses), result.losses)
        self.losses += result.losses
        self.epochs.append(metrics)
        self.run.log_epoch(len(self.epochs), metrics)
        if self.best is metrics:
            self._checkpoint().save(self.workspace.checkpoints / BEST)
            title = f"Validation split, {self.card.title}, epoch {len(self.epochs)}"
            roc = self.workspace.figures / "val_roc.png"
            draw_roc(roc, predictions.labels, predictions.logits, self.card.findings, title)
        top = f", top-1 {metrics['val_top_1']:.3f}" if "val_top_1" in metrics else ""
        return (
            f"{self._place()}: training loss {metrics['train_loss']:.3f}, validation loss {metrics['val_loss']:.3f}, "
            f"mean AUROC {metrics['val_auroc_mean']:.3f}{top}, {metrics['images_per_s']:.0f} images/s"
        )

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the best epoch so far; the first of equally good ones."""
        return max(self.epochs, key=self._quality)

    @property
    def is_enough(self) -> bool:
        """Whether the last training.patience epochs of this stage were no better than an earlier one."""
        qualities = [self._quality(epoch) for epoch in self._epochs_of_stage()]
        return bool(qualities) and 0 < self.settings.training.patience < len(qualities) - np.argmax(qualities)

    def save(self, epoch: int, step: int, trainer_state: dict) -> None:
        """Saves the state that a resumed training needs; its next step is `step` of `epoch`."""
        training = self.settings.training
        State(
            stage=self.index,
            stage_epoch=len(self._epochs_of_stage()),
            epoch=epoch,
            step=step,
            stage_run_ids=self.run.stage_ids,
            all_losses=self.losses,
            epochs=self.epochs,
            run_id=self.run.run_id,
            delta_table_id=self.card.delta_table_id,
            delta_version=self.card.delta_version,
            settings=asdict(training),
            ancestors=self.ancestors,
            plan=self.trainer.plan.describe(),
            **trainer_state,
        ).save(self.workspace.checkpoints / LAST)

    def say_stopped(self, epoch: int, step: int) -> None:
        """Prints where SIGTERM stopped the training, and how to resume it."""
        self.stopped = True
        print(f"Stopped by SIGTERM in epoch {epoch + 1} after step {step}: {self.workspace.checkpoints / LAST}")
        print("Next: the same command with --resume")

    def _quality(self, metrics: dict[str, float]) -> float:
        by = self.settings.training.choose_by
        return -metrics["val_loss"] if by == "loss" else metrics["val_top_1" if by == "top_1" else "val_auroc_mean"]

    def _epochs_of_stage(self) -> list[dict[str, float]]:
        return [epoch for epoch in self.epochs if epoch["stage"] == self.index]

    def _place(self) -> str:
        """The place in the training, such as `epoch 3/10`, or `head, epoch 3/5` if there are several stages."""
        stage = self.stages[self.index]
        name = f"{stage.name}, " if len(self.stages) > 1 else ""
        return f"{name}epoch {len(self._epochs_of_stage())}/{stage.settings.epochs}"

    def best_weights(self) -> dict[str, torch.Tensor]:
        """Weights of the best epoch's model."""
        return Checkpoint.load(self.workspace.checkpoints / BEST).weights

    def finish(self, peaks_mb: list[float], val: Predictions, test: Predictions) -> None:
        """Measures the best epoch, logs figures and checkpoint, adds to summary.json, and prints the next step.

        peaks_mb: peak resident memory of each rank, MB. val, test: predictions of the best epoch's model.
        """
        report = self._evaluate(val, test)
        for name in ("val_roc", *FIGURES):
            self.run.log_figure(self.workspace.figures / f"{name}.png")
        of_test = report["splits"]["test"]["auroc"]["mean"]
        history = self.workspace.figures / "training.png"
        name = "cross-entropy" if self.settings.training.exclusive else "binary cross-entropy"
        name = name if (self.pos_weight == 1).all() else f"weighted {name}"
        draw_history(history, self.losses, self.epochs, name, self.card.title)
        self.run.log_figure(history)
        best = self.workspace.checkpoints / BEST
        self.run.log_checkpoint(best)
        update_summary(
            self.workspace,
            training={
                "launcher": self.topology.launcher,
                "world_size": self.topology.world_size,
                "epochs": len(self.epochs),
                "images_per_s": round(self._mean("images_per_s"), 1),
                "reader_images_per_s": round(reading_speed(self.task.val), 1),
                "waiting_fraction": round(self._mean("waiting_fraction"), 4),
                "val_auroc": round(self.best["val_auroc_mean"], 4),
                "test_auroc": of_test,
                "run_id": self.run.run_id,
            },
            peak_memory_mb={"training_rank": round(max(peaks_mb))},
        )
        epoch, by = self.epochs.index(self.best) + 1, self.settings.training.choose_by.replace("_", "-")
        print(f"Best epoch {epoch}, by {by}; its mean validation AUROC {self.best['val_auroc_mean']:.3f}: {best}")
        for name, ends in {"mean AUROC": of_test, **report["splits"]["test"].get("accuracy", {})}.items():
            value, low, high = ("undefined" if end is None else f"{end:.3f}" for end in ends.values())
            print(f"Test split: {name.replace('_', '-')} {value}, 95% interval over patients {low} to {high}")
        print("Next: " + with_same_settings("python inference/register.py"))

    def _evaluate(self, val: Predictions, test: Predictions) -> dict:
        """Returns the report of evaluation.json, and adds report and predictions to the run."""
        seed = self.settings.training.seed
        exclusive = self.settings.training.exclusive
        report = evaluate(self.workspace, self.task.table, val, test, self.pos_weight, seed, exclusive=exclusive)
        self.run.log_evaluation(self.workspace, report)
        return report

    def _mean(self, metric: str) -> float:
        # An epoch that was resumed after its last step took no steps, so it has no speed.
        return float(np.mean([epoch[metric] for epoch in self.epochs if epoch["images_per_s"]] or [0.0]))

    def _measure(self, result: EpochResult, predictions: Predictions) -> dict[str, float]:
        """Loss and AUROC per finding on the validation split, and the training's loss and speed."""
        labels, logits = predictions.labels, predictions.logits
        aurocs = auroc_per_finding(labels, logits)
        top = {"val_top_1": float(top_k_hits(labels, logits, 1).mean())} if self.model.exclusive else {}
        return {
            "stage": float(self.index),
            "train_loss": float(np.mean(result.losses)),
            "val_loss": self.trainer.val_loss,
            "val_auroc_mean": mean_over_findings(aurocs),
            "images_per_s": result.images_per_s,
            "waiting_fraction": result.waiting_fraction,
            **top,
            **{f"val_auroc_{name}": float(auroc) for name, auroc in zip(self.card.findings, aurocs, strict=True)},
        }

    def _checkpoint(self) -> Checkpoint:
        """The model of this moment, with its lineage."""
        return Checkpoint(
            weights={name: tensor.cpu() for name, tensor in self.model.state_dict().items()},
            model=self.settings.training.model,
            findings=self.card.findings,
            size_px=self.settings.training.size_px,
            pixel_mean=float(self.model.pixel_mean),
            pixel_std=float(self.model.pixel_std),
            channels=self.model.channels,
            tabular=self.model.tabular is not None,
            exclusive=self.model.exclusive,
            map_stride=self.model.map_stride,
            sharpness=self.model.sharpness,
            epoch=len(self.epochs),
            val_auroc=self.epochs[-1]["val_auroc_mean"],
            delta_table_id=self.card.delta_table_id,
            delta_version=self.card.delta_version,
            run_id=self.run.run_id,
            commit=self.run.commit,
            settings=self.settings.to_dict(),
            ancestors=self.ancestors,
            plan=self.trainer.plan.describe(),
            software=versions_of(*TRAINED_WITH),
        )


def reading_speed(split: Split) -> float:
    """Images per second of the reader alone, in one process, over a whole split."""
    started = time.perf_counter()
    images = sum(len(batch.labels) for batch in read_batches(split, EVALUATION_BATCH_SIZE))
    return images / (time.perf_counter() - started)
