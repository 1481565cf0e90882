"""Checks that a kill leaves either the old version or the new one: kills the real command at random moments.

    python -m jobs.benchmarks.etl.kills --images DIR   20 kills, of the whole run and of one worker in turn
    python -m jobs.benchmarks.etl.kills --images DIR --kills 100 --seed 1

DIR holds PNGs. Before each run some images are replaced, removed or relabelled, so that there is work to do. After each
kill the newest version is read and compared. A last run must give the rows of a fresh table. Prints one line per kill;
the exit code is not 0 if a version is neither the old nor the new one.
"""

import argparse
import csv
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from conf.errors import InputError, run_command
from conf.workspace import Workspace
from etl.contract.table import read_card, read_committed
from jobs.benchmarks.etl.throughput import find_pngs

NUM_IMAGES, NUM_CHANGED = 800, 200
SCENARIO = """
etl:
  format: csv
  sizes_px: [512, 224]
  rows_per_row_group: 32
  rows_per_file: 64
  val_fraction: 0.2
  test_fraction: 0.2
  max_quarantined_fraction: 1
  quality: {duplicates: false, duplicates_across_patients: false}
"""


class Source:
    """A folder of links to the images, with a label file."""

    def __init__(self, root: Path, films: list[Path], dice: random.Random):
        self.root, self.films, self.dice = root, films, dice
        self.labels = {f"{index:04}.png": 0 for index in range(NUM_IMAGES)}
        root.mkdir()
        self.change(list(self.labels))

    def change(self, names: list[str]) -> None:
        """Links these images to other files or to none, and draws new labels for them."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)
            if self.dice.random() < 0.95:
                (self.root / name).symlink_to(self.dice.choice(self.films))
            self.labels[name] = self.dice.randint(0, 1)
        with (self.root / "labels.csv").open("w", newline="") as file:
            rows = ((name, f"patient {name[:3]}", label) for name, label in self.labels.items())
            csv.writer(file).writerows([("image", "patient", "Effusion"), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNGs")
    parser.add_argument("--kills", type=int, default=20, help="number of kills (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments and the changes (default 0)")
    arguments = parser.parse_args()
    films = find_pngs(arguments.images)
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
        source = Source(Path(folder, "source"), films, dice)
        Path(folder, "small.yaml").write_text(SCENARIO)
        workspace = Workspace.at(f"{folder}/workspace")
        started = time.monotonic()
        finish(start(folder, workspace), folder)
        seconds = time.monotonic() - started
        version, rows = read_rows(workspace)
        print(f"first run: {seconds:.0f} s, {len(rows)} rows", flush=True)
        hits = 0
        for kill in range(arguments.kills):
            source.change(dice.sample(list(source.labels), NUM_CHANGED))
            run = start(folder, workspace)
            seconds_to_kill = dice.uniform(0.2, 0.8) * seconds
            hit, what = kill_worker(run, folder, dice) if kill % 2 else kill_all(run, seconds_to_kill)
            hits += hit
            before, old = version, rows
            version, rows = read_rows(workspace)
            if version == before and not rows.equals(old):
                raise InputError(f"kill {kill} ({what}) changed the rows of version {version}")
            print(f"kill {kill}: {what}: {'the old' if version == before else 'a new'} version, {len(rows)} rows")
        finish(start(folder, workspace), folder)
        fresh = Workspace.at(f"{folder}/fresh")
        finish(start(folder, fresh), folder)
        if not read_rows(workspace)[1].equals(read_rows(fresh)[1]):
            raise InputError("the table after the last run differs from that of a fresh run")
        print(f"{hits} of {arguments.kills} kills hit; the last version has the rows of a fresh table")


def start(folder: str, workspace: Workspace) -> subprocess.Popen:
    """Starts the command as the leader of a process group of its own."""
    command = ["spark-submit", "etl/preprocess.py", "--config", f"{folder}/small.yaml"]
    command += ["--etl.source", f"{folder}/source", "--workspace", str(workspace.root)]
    with open(f"{folder}/output", "w") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def finish(run: subprocess.Popen, folder: str) -> None:
    if run.wait():
        raise InputError(
            f"{' '.join(run.args)} ended with exit code {run.returncode}:\n{Path(folder, 'output').read_text()[-2000:]}"
        )


def kill_all(run: subprocess.Popen, seconds: float) -> tuple[bool, str]:
    time.sleep(seconds)
    ended = run.poll() is not None
    if not ended:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    return not ended, f"after {seconds:.1f} s, the run {'had ended' if ended else 'was killed'}"


def kill_worker(run: subprocess.Popen, folder: str, dice: random.Random) -> tuple[bool, str]:
    """Kills one Python worker soon after it has started; the run must still succeed."""
    workers: list[psutil.Process] = []
    while not workers and run.poll() is None:
        time.sleep(0.05)
        workers = find_workers(run)
    time.sleep(dice.uniform(0, 1.5))
    try:
        dice.choice(workers).kill()
        killed = True
    except (IndexError, psutil.NoSuchProcess):
        killed = False
    finish(run, folder)
    return killed, f"a worker {'was killed' if killed else 'had ended'}, the run continued"


def find_workers(run: subprocess.Popen) -> list[psutil.Process]:
    try:
        return [process for process in psutil.Process(run.pid).children(recursive=True) if is_worker(process)]
    except psutil.NoSuchProcess:
        return []


def is_worker(process: psutil.Process) -> bool:
    """Whether the process is one of Spark's Python workers, which pyspark.daemon forks."""
    try:
        return all("pyspark.daemon" in part.cmdline() for part in (process, process.parent() or process))
    except psutil.Error:
        # The process has just ended.
        return False


def read_rows(workspace: Workspace) -> tuple[int, pd.DataFrame]:
    """Returns the newest version, and the image, pixel hash, findings and split of each of its rows."""
    tables = workspace.tables("")
    card = read_card(tables[0])
    rows = read_committed(*tables, card).rows
    if len(rows) != sum(card.images.values()):
        raise InputError(f"version {card.delta_version} has {len(rows)} rows, but its card says {card.images}")
    rows = rows[["image_id", "pixel_hash", "findings", "split"]].sort_values("image_id", ignore_index=True)
    return card.delta_version, rows.assign(findings=rows.findings.map(tuple))


if __name__ == "__main__":
    run_command(main)
