"""Trains a lung network on the table's films with masks, measures it, and tracks the run."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch

from conf.arguments import with_same_settings
from conf.progress import say
from conf.settings import Settings
from conf.workspace import Workspace, update_summary
from conf.writing import atomic_path, write_json
from etl.contract.schema import image_column
from etl.contract.version import TableVersion
from training.measures.intervals import bootstrap_means
from training.network.lung_network import LungNetwork, load_network, save_network
from training.record.tracking import TrackedRun
from training.segmentation.loop import measure, torch_predict, train
from training.segmentation.reading import Films, check_masks, read_films, stored_size

NETWORK, REPORT = "network.pt", "report.json"
NUM_RESAMPLES = 1000


def run(settings: Settings, workspace: Workspace) -> None:
    """Writes lungs/network.pt, lungs/report.json and an MLflow run. Raises InputError for a table without masks."""
    table = TableVersion.of(workspace, elsewhere=settings.etl.table)
    check_masks(table.card)
    title, experiment = f"lungs {settings.lungs.size_px} px", settings.lungs.experiment
    tracking = {"section": "lungs", "experiment": experiment}
    with workspace.exclusive(), TrackedRun(workspace, settings, table, None, title, **tracking) as tracked:
        workspace.lungs.mkdir(exist_ok=True)
        report = train_and_measure(settings, workspace, table, tracked)
        write_json(workspace.lungs / REPORT, report)
        tracked.log_file(workspace.lungs / REPORT)
        tracked.log_file(workspace.lungs / NETWORK)
        overlaps = {split: measured["iou"] for split, measured in report["splits"].items()}
        update_summary(workspace, lungs={"run_id": tracked.run_id, **overlaps})
    for split, measured in report["splits"].items():
        low, high = measured["interval"]
        print(
            f"IoU on the {split} split, {measured['films']:,} films of {table.card.title}: mean {measured['iou']:.4f} "
            f"({low:.4f} to {high:.4f}), lowest {measured['lowest']:.3f}"
        )
    print(f"Network: {workspace.lungs / NETWORK}")
    print(f"Next: {with_same_settings('python inference/lungs.py')}")


def train_and_measure(settings: Settings, workspace: Workspace, table: TableVersion, tracked: TrackedRun) -> dict:
    """Trains, keeps the epoch with the best overlap on the validation split, and returns the report."""
    lungs, card = settings.lungs, table.card
    if (stored := stored_size(card, lungs.size_px)) < lungs.size_px:
        say(
            f"note: {card.title} has films of {stored} pixels at most, which are enlarged to {lungs.size_px}; the crop "
            f"will show the network sharper ones: add {lungs.size_px} to etl.sizes_px"
        )
    column = image_column(stored)
    torch.manual_seed(lungs.seed)
    network = LungNetwork(card.pixel_mean[column], card.pixel_std[column])
    about = {
        "size_px": lungs.size_px,
        "square": card.settings["square"],
        "run_id": tracked.run_id,
        "commit": tracked.commit,
        "delta_table_id": card.delta_table_id,
        "delta_version": card.delta_version,
        "data": card.title,
        "phantoms": card.of_phantoms,
    }
    best = -1.0

    def batches(split: str, rng: np.random.Generator | None = None):
        return read_films(table, split, lungs.size_px, lungs.batch_size, rng)

    def after_epoch(epoch: int, loss: float) -> None:
        nonlocal best
        overlap = float(measure(torch_predict(network), batches("val"))[0].mean())
        tracked.log_epoch(epoch, {"train_loss": loss, "val_iou": overlap})
        print(f"epoch {epoch + 1}/{lungs.epochs}: loss {loss:.4f}, IoU on the val split {overlap:.4f}", flush=True)
        if overlap > best:
            best = overlap
            with atomic_path(workspace.lungs / NETWORK) as temporary:
                save_network(network, temporary, {**about, "epoch": epoch + 1, "val_iou": overlap})

    # At most as many: a batch may have a film more.
    steps = math.ceil(card.masks["images"]["train"] / lungs.batch_size)
    rng = np.random.default_rng(lungs.seed)
    train(network, lambda _: batches("train", rng), steps, lungs.epochs, lungs.learning_rate, lungs.seed, after_epoch)
    network, about = load_network(workspace.lungs / NETWORK)
    splits = {split: describe_overlap(torch_predict(network), batches(split), lungs.seed) for split in ("val", "test")}
    tracked.log_epoch(lungs.epochs, {f"{split}_best_iou": measured["iou"] for split, measured in splits.items()})
    return {**about, "splits": splits}


def describe_overlap(predict: Callable[[np.ndarray], np.ndarray], batches: Iterable[Films], seed: int) -> dict:
    """Mean overlap with its 95% interval over patients, and the lowest. predict, batches: as for measure."""
    overlaps, patients = measure(predict, batches)
    mean, low, high = bootstrap_means(overlaps[:, None], patients, num_resamples=NUM_RESAMPLES, seed=seed)
    return {
        "films": len(overlaps),
        "iou": float(mean[0]),
        "interval": [float(low[0]), float(high[0])],
        "lowest": float(overlaps.min()),
    }
