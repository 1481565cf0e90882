"""One rank that launchers.py starts: takes steps with the launcher's collectives and without, and compares the losses.

torchrun --standalone --nproc_per_node 1 -m jobs.benchmarks.gpu.rank [--tiny]
"""

import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from conf.errors import run_command
from jobs.benchmarks.gpu.launchers import TIMEOUT_S
from jobs.benchmarks.gpu.plan import GPU, TINY, Cell
from jobs.benchmarks.gpu.steps import build_trainer
from jobs.benchmarks.training.fed import print_measured
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology

STEPS = 5


def main() -> None:
    scale = TINY if "--tiny" in sys.argv else GPU
    cell = Cell(scale.models[-1], scale.sizes_px[0], scale.batch_sizes[0], "fp32")
    topology = Topology.detect(scale.device)
    if scale is TINY:
        torch.set_num_threads(1)
    ranks = Collectives(topology)
    losses, speeds = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, collectives in (("alone", None), ("launched", ranks)):
            trainer = build_trainer(cell, replace(scale, steps=STEPS), Path(folder), collectives)
            losses[name] = []
            for epoch in range(2):
                for _ in trainer.train_epoch(epoch):
                    pass
                losses[name] += trainer.result.losses
            speeds[name] = trainer.result.images_per_s
    apart = max(abs(one - other) / one for one, other in zip(losses["alone"], losses["launched"], strict=True))
    ratio = speeds["launched"] / speeds["alone"]
    print_measured({"backend": topology.backend, "losses_apart": apart, "ratio": ratio})
    ranks.close()


if __name__ == "__main__":
    # torchrun gives each rank a session of its own, so a rank whose torchrun was killed has to end by itself.
    signal.alarm(TIMEOUT_S)
    run_command(main)
