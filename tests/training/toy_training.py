"""One rank of small trainings, run by test_exactness.py with each launcher.

    python -m tests.training.toy_training DIR TABLE [--cache_dir CACHE] [--torch_collectives]

The table's row groups divide unevenly, every rank starts from different weights, and the network has BatchNorm and
dropout: everything that could make ranks differ from each other or from a single process.
"""

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from conf.settings import Training
from training.loop.trainer import Trainer
from training.network.checkpoint import State
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split
from training.reading.readers import read_shards
from training.start.caching import cached

SIZE_PX = 8
ROW_GROUPS = [12, 3, 9, 2, 7, 9, 4, 10]
# Four streams with 19, 12, 13 and 12 rows: 10 steps an epoch of at most 8 images.
IMAGES_PER_STEP, STREAMS, EPOCHS = 8, 4, 2
FROZEN = Training(epochs=EPOCHS, learning_rate=0.02, streams=STREAMS, freeze_batchnorm=True, precision="fp32")
STEPS = 10
STOPS = [(epoch, step) for epoch in range(EPOCHS) for step in range(1, STEPS + 1)]


class Small(nn.Module):
    def __init__(self, dropout: float):
        super().__init__()
        # The second convolution's weights have another layout in memory if the channels come last.
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Dropout(dropout)),
        )
        self.classifier = nn.Linear(4 * 16, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.classifier(self.body(pixels.float().unsqueeze(1) / 255).flatten(1))


def write_table(path: Path) -> None:
    """Random images and labels, some of them unknown."""
    rng = np.random.default_rng(0)
    schema = {"image_id": pa.string(), "findings": pa.list_(pa.float32()), f"image_{SIZE_PX}": pa.binary()}
    with pq.ParquetWriter(path, pa.schema(schema)) as writer:
        for index, rows in enumerate(ROW_GROUPS):
            names = [f"{index}_{row}.png" for row in range(rows)]
            findings = [[float(rng.random() < 0.5), [0.0, 1.0, np.nan][rng.integers(3)]] for _ in range(rows)]
            pixels = [rng.bytes(SIZE_PX * SIZE_PX) for _ in range(rows)]
            writer.write_table(pa.table([names, findings, pixels], schema=pa.schema(schema)))


def make_trainer(table: str, settings: Training, ranks: Collectives, dropout: float) -> Trainer:
    torch.manual_seed(ranks.topology.rank)
    whole = Split("train", [table], ROW_GROUPS, SIZE_PX, source=read_shards)
    (split,) = cached([whole], settings, ranks.topology)
    world_size = ranks.topology.world_size
    plan = Plan.of(split, IMAGES_PER_STEP // world_size, world_size, settings.streams)
    return Trainer(Small(dropout), settings, plan, torch.tensor([1.0, 2.0]), ranks)


def train(trainer: Trainer, epoch: int = 0, step: int = 0, stops=()) -> tuple[dict, dict[tuple[int, int], State]]:
    """Weights, losses and logits at the end, and the states between `step` of `epoch` and there at `stops`."""
    states, losses = {}, []
    for now in range(epoch, EPOCHS):
        start = step if now == epoch else 0
        for done, _ in enumerate(trainer.train_epoch(now, start), start + 1):
            if (now, done) in stops:
                states[now, done] = copy_of(trainer.state())
        losses += trainer.result.losses
        predictions = trainer.predict(trainer.plan.split)
        trainer.after_validation(predictions)
    weights = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    return {"weights": weights, "losses": losses, "logits": torch.from_numpy(predictions.logits)}, states


def copy_of(trainer_state: dict) -> State:
    """The trainer's part of a State, as it is after saving and loading."""
    file = io.BytesIO()
    torch.save(trainer_state, file)
    file.seek(0)
    return make_state(**torch.load(file, weights_only=True))


def make_state(**parts) -> State:
    """A State with these parts; all others are empty."""
    place = {"stage": 0, "stage_epoch": 0, "epoch": 0, "step": 0}
    place |= {"run_id": "", "stage_run_ids": [], "delta_table_id": "", "delta_version": 0}
    story = {"losses": [], "all_losses": [], "epochs": [], "settings": {}, "plan": {}}
    trained = {"weights": {}, "buffers": [], "optimizer": {}, "schedule": {}, "scaler": {}}
    return State(**{**place, **story, **trained, **parts})


def run(table: str, ranks: Collectives, cache_dir: str = "") -> dict[str, dict]:
    """Name of a training -> what it ends with. table: path or address; the cache is used if that is in a store."""
    ends, frozen = {}, replace(FROZEN, cache_dir=cache_dir)
    ends["frozen"], _ = train(make_trainer(table, frozen, ranks, dropout=0))
    ends["accumulated"], _ = train(make_trainer(table, replace(frozen, accumulation=3), ranks, dropout=0))
    free = replace(frozen, freeze_batchnorm=False, schedule="plateau", warmup_epochs=0.3, clip_norm=1.0)
    free = replace(free, layer_decay=0.5)
    # With more than two ranks, the order of Horovod's sums depends on which gradients were ready together.
    stops = STOPS if ranks.topology.world_size <= 2 else []
    ends["whole"], states = train(make_trainer(table, free, ranks, dropout=0.3), stops=stops)
    for (epoch, step), state in states.items():
        trainer = make_trainer(table, free, ranks, dropout=0.3)
        trainer.load(state)
        ends[f"resumed {epoch} {step}"], _ = train(trainer, epoch, step)
    return ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("table")
    parser.add_argument("--cache_dir", default="")
    parser.add_argument("--torch_collectives", action="store_true")
    arguments = parser.parse_args()
    if arguments.torch_collectives:
        # As on GPUs if Horovod has no NCCL, with gloo in NCCL's place.
        Topology.backend = property(lambda _: "gloo")
    torch.set_num_threads(1)
    collectives = Collectives(Topology.detect("cpu"))
    result = run(arguments.table, collectives, arguments.cache_dir)
    torch.save(result, arguments.folder / f"rank_{collectives.topology.rank}.pt")
    collectives.close()
