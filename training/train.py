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
import time
from contextlib import ExitStack

import torch
from tqdm import tqdm

from conf.errors import EXIT_INPUT_ERROR, InputError, run_command
from conf.settings import Settings, load_settings
from conf.workspace import Workspace, update_summary
from etl.schema import Card, image_column
from training.checkpoint import BEST, Checkpoint
from training.figures import draw_history, draw_roc
from training.loop import EVALUATION_BATCH_SIZE, EpochResult, Predictions, Trainer
from training.loss import masked_bce, positive_weights
from training.metrics import auroc_per_finding, mean_auroc
from training.models import build_model
from training.readers import Split, check_world_size, open_split, read_batches
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
    check_measurable(card)
    torch.manual_seed(training.seed)
    column = image_column(training.size_px)
    model = build_model(training.model, len(card.findings), card.pixel_mean[column], card.pixel_std[column])
    return card, train_split, val_split, model


def check_measurable(card: Card) -> None:
    """Raises InputError when no finding has an AUROC on the validation split, by which the best epoch is chosen."""
    known, positives = card.known["val"], card.positives["val"]
    if not any(0 < positives[finding] < known[finding] for finding in card.findings):
        raise InputError(
            f"no finding has both positives and negatives among the {card.images['val']} validation images, so no "
            "epoch can be chosen by AUROC: raise etl.val_fraction and run the ETL again"
        )


def train(settings: Settings, ranks: Collectives, card: Card, train_split, val_split, model) -> None:
    """All epochs; rank 0 also tracks, draws and keeps the best checkpoint."""
    workspace, training, topology = Workspace.at(settings.workspace), settings.training, ranks.topology
    trainer = Trainer(model, training, train_split, positive_weights(card, training.pos_weight_max), ranks)
    images = train_split.rows * training.epochs
    losses, epochs = [], []
    with ExitStack() as stack:
        run = stack.enter_context(TrackedRun(workspace, settings, card, topology)) if topology.is_main else None
        bar = stack.enter_context(tqdm(total=images, unit="image", desc="training", disable=not topology.is_main))
        for epoch in range(training.epochs):
            result = trainer.train_epoch(epoch, bar)
            predictions = trainer.predict(val_split)
            peaks_mb = ranks.gather(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            if not topology.is_main:
                continue
            metrics = epoch_metrics(result, predictions, card, trainer.pos_weight.cpu())
            run.log_steps("step_loss", len(losses), result.losses)
            run.log_epoch(epoch + 1, metrics)
            losses += result.losses
            epochs.append(metrics)
            bar.write(describe(epochs, training.epochs))
            if metrics["val_auroc_mean"] == max(past["val_auroc_mean"] for past in epochs):
                checkpoint_of(settings, card, model, run, len(epochs), metrics).save(workspace.checkpoints / BEST)
                title = f"Validation split, Delta version {card.delta_version}, epoch {epoch + 1}"
                roc = workspace.figures / "val_roc.png"
                draw_roc(roc, predictions.labels, predictions.logits, card.findings, title)
        if topology.is_main:
            draw_history(workspace.figures / "training.png", losses, epochs, f"Delta version {card.delta_version}")
            run.log_figure(workspace.figures / "training.png")
            run.log_figure(workspace.figures / "val_roc.png")
            run.log_checkpoint(workspace.checkpoints / BEST)
    if topology.is_main:
        finish(workspace, topology, run, epochs, peaks_mb, reading_speed(val_split))


def epoch_metrics(result: EpochResult, predictions: Predictions, card: Card, pos_weight: torch.Tensor) -> dict:
    """What is tracked of an epoch: loss and AUROC per finding on the validation split, loss and speed of training."""
    aurocs = auroc_per_finding(predictions.labels, predictions.logits)
    val_loss = masked_bce(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.labels), pos_weight)
    return {
        "train_loss": sum(result.losses) / len(result.losses),
        "val_loss": val_loss.item(),
        "val_auroc_mean": mean_auroc(aurocs),
        "images_per_s": result.images_per_s,
        "waiting_fraction": result.waiting_fraction,
        **{f"val_auroc_{finding}": float(auroc) for finding, auroc in zip(card.findings, aurocs, strict=True)},
    }


def describe(epochs: list[dict], num_epochs: int) -> str:
    """The last epoch in one line."""
    last = epochs[-1]
    return (
        f"epoch {len(epochs)}/{num_epochs}: training loss {last['train_loss']:.3f}, validation loss "
        f"{last['val_loss']:.3f}, mean AUROC {last['val_auroc_mean']:.3f}, {last['images_per_s']:.0f} images/s"
    )


def checkpoint_of(settings: Settings, card: Card, model, run: TrackedRun, epoch: int, metrics: dict) -> Checkpoint:
    """The model as it is now, with its lineage."""
    return Checkpoint(
        weights={name: tensor.cpu() for name, tensor in model.state_dict().items()},
        model=settings.training.model,
        findings=card.findings,
        size_px=settings.training.size_px,
        pixel_mean=float(model.pixel_mean),
        pixel_std=float(model.pixel_std),
        epoch=epoch,
        val_auroc=metrics["val_auroc_mean"],
        delta_version=card.delta_version,
        run_id=run.run_id,
        commit=run.commit,
        settings=settings.to_dict(),
    )


def reading_speed(split: Split) -> float:
    """Images/s of the reader alone, one process, over a whole split."""
    started = time.perf_counter()
    images = sum(len(batch.labels) for batch in read_batches(split, EVALUATION_BATCH_SIZE))
    return images / (time.perf_counter() - started)


def finish(
    workspace: Workspace,
    topology: Topology,
    run: TrackedRun,
    epochs: list[dict],
    peaks_mb: list[float],
    reader_images_per_s: float,
) -> None:
    """Writes the summary's training part and says what comes next."""
    best = max(epoch["val_auroc_mean"] for epoch in epochs)

    def mean(name: str) -> float:
        return sum(epoch[name] for epoch in epochs) / len(epochs)

    update_summary(
        workspace,
        training={
            "launcher": topology.launcher,
            "world_size": topology.world_size,
            "epochs": len(epochs),
            "images_per_s": round(mean("images_per_s"), 1),
            "reader_images_per_s": round(reader_images_per_s, 1),
            "waiting_fraction": round(mean("waiting_fraction"), 4),
            "val_auroc": round(best, 4),
            "run_id": run.run_id,
        },
        peak_memory_mb={"training_rank": round(max(peaks_mb))},
    )
    print(f"Best mean validation AUROC {best:.3f}: {workspace.checkpoints / BEST}")
    print("Next: python inference/register.py (with the same --config or --workspace)")


if __name__ == "__main__":
    run_command(main)
