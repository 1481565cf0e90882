"""One rank of a small training; test_two_ranks.py starts it under each launcher: python -m tests.training.two_ranks DIR

It trains on a table whose row groups share out unevenly, from other weights on every rank, without the augmentation:
what all ranks end with must be what one process makes of the same images.
"""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn
from tqdm import tqdm

from conf.settings import Training
from training.loop import Trainer
from training.readers import Split
from training.topology import Collectives, Topology

SIZE_PX = 8
# Of two ranks the first gets 21 rows, the second 5; with this batch size each epoch is one step of all rows.
ROW_GROUPS = [12, 3, 9, 2]
SETTINGS = Training(epochs=4, batch_size=26, learning_rate=0.05)


class OneLayer(nn.Module):
    """No BatchNorm, whose statistics would be of a rank's own images; a buffer to be averaged."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(SIZE_PX * SIZE_PX, 2)
        self.register_buffer("statistic", torch.zeros(1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layer(pixels.flatten(1).float() / 255)


def write_table(path: Path) -> None:
    """Random images and known labels; the positives of the second finding lie in the small rank's row groups."""
    rng = np.random.default_rng(0)
    schema = {"image_id": pa.string(), "findings": pa.list_(pa.float32()), f"image_{SIZE_PX}": pa.binary()}
    with pq.ParquetWriter(path, pa.schema(schema)) as writer:
        for index, rows in enumerate(ROW_GROUPS):
            names = [f"{index}_{row}.png" for row in range(rows)]
            findings = [[float(rng.random() < 0.5), float(index % 2)] for _ in range(rows)]
            pixels = [rng.bytes(SIZE_PX * SIZE_PX) for _ in range(rows)]
            writer.write_table(pa.table([names, findings, pixels], schema=pa.schema(schema)))


def train(table: Path) -> dict[str, list]:
    """What this rank has after the training, plain lists."""
    ranks = Collectives(Topology.detect("cpu"))
    rank = ranks.topology.rank
    torch.manual_seed(rank)
    split = Split("train", [str(table)], ROW_GROUPS, SIZE_PX)
    trainer = Trainer(OneLayer(), SETTINGS, split, torch.tensor([1.0, 2.0]), ranks)
    trainer.model.statistic.fill_(rank + 1)
    with patch("training.loop.augment", lambda pixels, _: pixels):
        epochs = [trainer.train_epoch(epoch, tqdm(disable=True)) for epoch in range(SETTINGS.epochs)]
    logits = trainer.predict(split).logits
    ranks.close()
    return {
        "weights": torch.cat([weight.flatten() for weight in trainer.model.parameters()]).tolist(),
        "losses": [loss for epoch in epochs for loss in epoch.losses],
        "logits": logits.tolist(),
        "statistic": trainer.model.statistic.tolist(),
        "rank": rank,
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    end = train(folder / "table.parquet")
    (folder / f"rank_{end['rank']}.json").write_text(json.dumps(end))
