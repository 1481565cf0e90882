"""Checks that a cached training from a store survives kills: kills the real command at random moments and resumes it.

    python -m jobs.benchmarks.training.kills --workspace DIR      10 kills of two ranks (default workspace runs/demo)
    python -m jobs.benchmarks.training.kills --kills 30 --seed 1

DIR is the workspace of a finished ETL. Its table is copied into an S3 server behind a slow link (see stores/link.py).
One training on the local table is left alone. Another one reads the table from the store, through a cache that has room
for a part of it; it is killed again and again, and resumed. After each kill the cache must be within its bound. At the
end both must have the same weights, bit for bit; otherwise the exit code is not 0. Prints one line per kill.
"""

import argparse
import os
import random
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import s3fs
import torch

from conf.errors import InputError, run_command
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from jobs.benchmarks.stores.link import store
from training.network.checkpoint import BEST, LAST, Checkpoint
from training.start.caching import FOLDER

ROUND_TRIP_S, BYTES_PER_S = 0.03, 80e6
RANKS, STEPS_BETWEEN_STATES, CACHED_SHARE = 2, 3, 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="workspace of a finished ETL (default runs/demo)")
    parser.add_argument("--kills", type=int, default=10, help="number of kills (default 10)")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of the training (default 6)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default 0)")
    arguments = parser.parse_args()
    table = TableVersion.of(Workspace.at(arguments.workspace))
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        root = Path(folder).absolute()
        whole, killed = (Workspace.at(str(root / name)) for name in ("whole", "killed"))
        (root / "served" / "bench").mkdir(parents=True)
        with store(root / "served", ROUND_TRIP_S, BYTES_PER_S):
            s3fs.S3FileSystem().put(table.shards, "bench/table/shards", recursive=True)
            local = os.path.dirname(table.shards)
            for workspace, place in ((whole, local), (killed, "s3://bench/table")):
                workspace.root.mkdir()
                replace(table.card, table=place).write(workspace.card)
            started = time.monotonic()
            finish(start(whole, table.card, arguments.epochs, root), root)
            seconds = time.monotonic() - started
            print(f"undisturbed, from the local table: {seconds:.0f} s", flush=True)
            images = sum(table.card.images.values())
            cache_gb = CACHED_SHARE * images * table.card.channels * min(table.card.sizes_px) ** 2 / 1e9
            cache = {"cache_dir": str(root / "cache"), "cache_gb": cache_gb}
            hits = 0
            for kill in range(arguments.kills):
                run = start(killed, table.card, arguments.epochs, root, **cache)
                hits += kill_at(run, dice.uniform(0.3, 0.9) * seconds, kill, killed, root)
                check_cache(root / "cache" / FOLDER, cache_gb)
            if not (killed.checkpoints / BEST).exists() or (killed.checkpoints / LAST).exists():
                finish(start(killed, table.card, arguments.epochs, root, **cache), root)
            check_cache(root / "cache" / FOLDER, cache_gb)
            left = [path.name for path in (root / "cache" / FOLDER / "row_groups").glob(".*")]
            if left:
                raise InputError(f"the cache still has {left} of killed trainings")
            check_weights(whole, killed)
    print(f"{hits} of {arguments.kills} kills hit; the weights are those of the undisturbed training, bit for bit")


def start(workspace: Workspace, card: Card, epochs: int, root: Path, **cache: object) -> subprocess.Popen:
    """Starts or resumes a training, as the leader of a process group of its own."""
    settings = {
        **{"model": "simple_cnn", "size_px": min(card.sizes_px), "epochs": epochs, "device": "cpu", "threads": 1},
        **{"checkpoint_steps": STEPS_BETWEEN_STATES, **cache},
    }
    command = [shutil.which("torchrun"), "--standalone", "--nproc_per_node", str(RANKS), "training/train.py"]
    command += ["--workspace", str(workspace.root), *(f"--training.{key}={value}" for key, value in settings.items())]
    command += ["--resume"] * (workspace.checkpoints / LAST).exists()
    with (root / "output").open("w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def finish(run: subprocess.Popen, root: Path) -> None:
    if run.wait():
        raise InputError(f"a training ended with exit code {run.returncode}:\n{(root / 'output').read_text()[:3000]}")


def kill_at(run: subprocess.Popen, seconds: float, kill: int, workspace: Workspace, root: Path) -> bool:
    """Kills the launcher and all ranks after some seconds, unless the training has ended by then."""
    try:
        run.wait(seconds)
    except subprocess.TimeoutExpired:
        # torchrun gives each rank a session of its own.
        killed = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
        for process in killed:
            process.kill()
        run.wait()
        psutil.wait_procs(killed)
        said = (root / "output").read_text()
        where = "with" if (workspace.checkpoints / LAST).exists() else "without"
        cached = next((line for line in said.splitlines() if line.startswith("Cache:")), "before the cache was opened")
        print(f"kill {kill}: after {seconds:.1f} s, {where} a saved state; {cached}", flush=True)
        return True
    finish(run, root)
    print(f"kill {kill}: the training had ended", flush=True)
    return False


def check_cache(folder: Path, limit_gb: float) -> None:
    """Raises InputError if the files of the cache are larger than its bound."""
    files = list((folder / "row_groups").iterdir()) if folder.exists() else []
    size = sum(path.stat().st_size for path in files)
    if size > limit_gb * 1e9:
        raise InputError(f"the cache has {size} bytes, its bound is {limit_gb * 1e9:.0f}")


def check_weights(whole: Workspace, killed: Workspace) -> None:
    """Raises InputError if the best epochs of two trainings have different weights."""
    expected, got = (Checkpoint.load(workspace.checkpoints / BEST) for workspace in (whole, killed))
    wrong = [name for name, tensor in expected.weights.items() if not torch.equal(got.weights[name], tensor)]
    if wrong or expected.epoch != got.epoch:
        raise InputError(f"the killed training ended in epoch {got.epoch} of {expected.epoch} with other {wrong}")


if __name__ == "__main__":
    run_command(main)
