"""The training command as people type it, and what tests do with one that is running."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from conf.arguments import Resume, load_settings
from conf.workspace import Workspace
from tests.conftest import SIZE_PX
from training.network.checkpoint import LAST, State
from training.start.run import run_rank

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SMALL = {"model": "simple_cnn", "size_px": SIZE_PX, "epochs": 2, "batch_size": 8}
EPOCHS = 6
SETTINGS = {"model": "simple_cnn", "size_px": SIZE_PX, "epochs": EPOCHS, "batch_size": 8, "checkpoint_steps": 1}
# Without --gloo horovodrun looks for MPI first, which takes seconds.
LAUNCHERS = {
    "none": [BIN / "python"],
    "horovodrun": [BIN / "horovodrun", "--gloo", "-np", "2", BIN / "python"],
    "torchrun": [BIN / "torchrun", "--standalone", "--nproc_per_node", "2"],
}


def command_of(workspace: Workspace, launcher: str, settings: dict) -> list[str]:
    own = {"resume": "--resume"}
    arguments = [word for key, value in settings.items() for word in (own.get(key, f"--training.{key}"), value)]
    return [str(w) for w in (*LAUNCHERS[launcher], "training/train.py", "--workspace", workspace.root, *arguments)]


def train(workspace: Workspace, launcher: str = "none", **changes) -> subprocess.CompletedProcess:
    command = command_of(workspace, launcher, {**SMALL, **changes})
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)


def train_here(workspace: Workspace, *words: str, resume: Resume = Resume.NO, **changes) -> None:
    """As the command does on one process, but in this process, which has its imports already. words: more arguments."""
    settings = load_settings("", [*command_of(workspace, "none", {**SMALL, **changes})[2:], *words])
    run_rank(settings, Workspace.of(settings), resume)


def start(workspace: Workspace, launcher: str, **changes) -> subprocess.Popen:
    return subprocess.Popen(
        command_of(workspace, launcher, {**SETTINGS, **changes}),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(run: subprocess.Popen, code: int = 0) -> str:
    output, _ = run.communicate(timeout=120)
    assert run.returncode == code, output
    return output


def wait_for_epoch(run: subprocess.Popen, workspace: Workspace, epoch: int) -> None:
    """Waits until a state of this epoch has been saved."""
    end = time.monotonic() + 120
    while True:
        assert time.monotonic() < end
        assert run.poll() is None, run.stdout.read()
        if (workspace.checkpoints / LAST).exists() and State.load(workspace.checkpoints / LAST).epoch >= epoch:
            return
        time.sleep(0.02)


def cpus_of(run: subprocess.Popen) -> list[set[int]]:
    """The CPUs of each rank, of whose threads none may have others."""
    cpus = []
    for _, process in sorted(ranks_of(run).items()):
        threads = [frozenset(os.sched_getaffinity(thread.id)) for thread in process.threads()]
        assert len(set(threads)) == 1 and len(threads) > 1
        cpus.append(set(threads[0]))
    return cpus


def ranks_of(run: subprocess.Popen) -> dict[str, psutil.Process]:
    """Rank -> its process."""
    found = {}
    for process in psutil.Process(run.pid).children(recursive=True):
        if process.cmdline()[1:2] == ["training/train.py"] or process.cmdline()[1:3] == ["-u", "training/train.py"]:
            environment = process.environ()
            found[environment.get("HOROVOD_RANK") or environment["RANK"]] = process
    return found
