"""Trains on the shards of the last ETL; the same command on one process or many.

    python training/train.py                                     one process
    horovodrun -np 8 python training/train.py                    8 ranks, gradients by Horovod
    torchrun --nproc_per_node 8 training/train.py                8 ranks, gradients by torch.distributed
    python training/train.py --training.epochs 1 --training.model simple_cnn        a quick try

Reads <workspace>/shards at the version that card.json names; writes checkpoints/best.pt (best mean validation AUROC),
figures/, and one MLflow run in mlflow.db.
"""

import resource
import sys
from contextlib import ExitStack

import torch
from tqdm import tqdm

from conf.errors import EXIT_INPUT_ERROR, InputError, run_command
from conf.settings import Settings, load_settings
from conf.workspace import Workspace, update_summary
from etl.schema import Card, image_column
from training.checkpoint import BEST, Checkpoint
from training.figures import draw_history, draw_roc
from training.loop import Predictions, Trainer
from training.loss import masked_bce, positive_weights
from training.metrics import auroc_per_finding, mean_auroc
from training.models import build_model
from training.readers import check_world_size, open_split
from training.topology import Collectives, Topology
from training.tracking import TrackedRun


def main() -> None:
    settings = load_settings("Trains on the shards of the last ETL.")
    topology = Topology.detect(settings.training.device)
    torch.set_num_threads(topology.cpu_threads(settings.training.threads))
    try:
        prepared = prepare(settings, topology)
    except InputError:
        # Every rank finds the same fault before any has contacted another; one message is enough.
        if topology.is_main:
            raise
        sys.exit(EXIT_INPUT_ERROR)
    ranks = Collectives(topology)
    train(settings, ranks, *prepared)
    ranks.close()


def prepare(settings: Settings, topology: Topology):
    """Checks all inputs and gives back card, training split, validation split and the fresh model."""
    workspace, training = Workspace.at(settings.workspace), settings.training
    card = Card.read(workspace.card)
    train_split, val_split = (open_split(workspace.shards, card, name, training.size_px) for name in ("train", "val"))
    check_world_size(train_split, topology.world_size, training.batch_size)
    torch.manual_seed(training.seed)
    column = image_column(training.size_px)
    model = build_model(training.model, len(card.findings), card.pixel_mean[column], card.pixel_std[column])
    return card, train_split, val_split, model


def train(settings: Settings, ranks: Collectives, card: Card, train_split, val_split, model) -> None:
    """All epochs; rank 0 also tracks, draws and writes the checkpoint."""
    workspace, training, topology = Workspace.at(settings.workspace), settings.training, ranks.topology
    trainer = Trainer(model, training, train_split, positive_weights(card, training.pos_weight_max), ranks)
    data = f"Delta version {card.delta_version}"
    losses, epochs, best_auroc = [], [], -1.0
    with ExitStack() as stack:
        run = stack.enter_context(TrackedRun(workspace, settings, card, topology)) if topology.is_main else None
        bar = stack.enter_context(
            tqdm(
                total=train_split.rows * training.epochs,
                unit="image",
                desc="training",
                smoothing=0.05,
                disable=not topology.is_main,
            )
        )
        for epoch in range(training.epochs):
            result = trainer.train_epoch(epoch, bar)
            predictions = trainer.predict(val_split)
            metrics = validation_metrics(predictions, card, trainer.pos_weight.cpu())
            metrics |= {
                "train_loss": sum(result.losses) / len(result.losses),
                "images_per_s": result.images_per_s,
                "waiting_fraction": result.waiting_fraction,
            }
            peaks_mb = ranks.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            if not topology.is_main:
                continue
            run.log_steps("step_loss", len(losses), result.losses)
            run.log_epoch(epoch + 1, metrics)
            losses += result.losses
            epochs.append(metrics)
            bar.write(
                f"epoch {epoch + 1}/{training.epochs}: loss {metrics['train_loss']:.3f}, validation loss "
                f"{metrics['val_loss']:.3f}, mean AUROC {metrics['val_auroc_mean']:.3f}, {result.images_per_s:.1f} images/s"
            )
            if metrics["val_auroc_mean"] > best_auroc or epoch == 0:
                best_auroc = metrics["val_auroc_mean"]
                checkpoint_of(settings, card, model, run, epoch + 1, best_auroc).save(workspace.checkpoints / BEST)
                title = f"Validation split, {data}, epoch {epoch + 1}, {val_split.rows} images"
                draw_roc(
                    workspace.figures / "val_roc.png", predictions.labels, predictions.logits, card.findings, title
                )
        if topology.is_main:
            draw_history(workspace.figures / "training.png", losses, epochs, data)
            for figure in ("val_roc.png", "training.png"):
                run.log_figure(workspace.figures / figure)
            run.log_checkpoint(workspace.checkpoints / BEST)
            bar.close()
            finish(workspace, topology, run, epochs, best_auroc, peaks_mb)


def validation_metrics(predictions: Predictions, card: Card, pos_weight: torch.Tensor) -> dict[str, float]:
    """Loss, AUROC per finding and their mean, on the validation split."""
    aurocs = auroc_per_finding(predictions.labels, predictions.logits)
    loss = masked_bce(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels), pos_weight)
    per_finding = {f"val_auroc_{finding}": float(value) for finding, value in zip(card.findings, aurocs, strict=True)}
    return {"val_loss": loss.item(), "val_auroc_mean": mean_auroc(aurocs), **per_finding}


def checkpoint_of(settings: Settings, card: Card, model, run: TrackedRun, epoch: int, val_auroc: float) -> Checkpoint:
    """The model as it is now, with its lineage."""
    return Checkpoint(
        weights={name: tensor.cpu() for name, tensor in model.state_dict().items()},
        model=settings.training.model,
        findings=card.findings,
        size_px=settings.training.size_px,
        pixel_mean=float(model.pixel_mean),
        pixel_std=float(model.pixel_std),
        epoch=epoch,
        val_auroc=val_auroc,
        delta_version=card.delta_version,
        run_id=run.run_id,
        commit=run.commit,
        settings=settings.to_dict(),
    )


def finish(
    workspace: Workspace, topology: Topology, run: TrackedRun, epochs: list[dict], best: float, peaks_mb
) -> None:
    """Writes the summary's training part and says what comes next."""
    update_summary(
        workspace,
        training={
            "launcher": topology.launcher,
            "world_size": topology.world_size,
            "epochs": len(epochs),
            "images_per_s": round(sum(epoch["images_per_s"] for epoch in epochs) / len(epochs), 1),
            "waiting_fraction": round(sum(epoch["waiting_fraction"] for epoch in epochs) / len(epochs), 4),
            "val_auroc": round(best, 4),
            "run_id": run.run_id,
        },
        peak_memory_mb={"training_rank": round(max(peaks_mb))},
    )
    print(f"best mean validation AUROC {best:.3f}, {workspace.checkpoints / BEST}")
    print("Next: python inference/register.py")


if __name__ == "__main__":
    run_command(main)
