"""Trains on the executors of a Spark cluster, one task per rank, without another launcher.

    spark-submit --master spark://HOST:7077 jobs/spark_train.py --workspace /shared/chest --jobs.num_ranks 4
    spark-submit --master spark://HOST:7077 jobs/spark_train.py \
        --etl.table s3://bucket/chest --tracking_server http://mlflow:5000           hosts that share no folder

By default there is a rank per executor; each has as many threads as spark.task.cpus, or the GPUs that Spark gives its
task. Settings and --resume are those of training/train.py. If a rank fails, this command prints its message and ends
with its exit code. If an executor is lost, it ends too; with --resume auto, the same command goes on.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from conf.arguments import add_resume, load_arguments, settings_in
from conf.errors import run_command
from conf.settings import Settings
from conf.startup import quick_imports

if TYPE_CHECKING:
    from etl.cluster.together import Place

READS = ("training", "etl.table", "jobs.num_ranks")
PLACES = ("--workspace", "--config")
PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


def main() -> None:
    description = "Trains on the executors of a Spark cluster, one task per rank."
    settings, options = load_arguments(description, "[--resume [auto]]", add_resume, reads=READS)
    words = [*with_absolute_paths(settings_in(sys.argv[1:])), "--resume", options.resume]
    with quick_imports():
        from etl.cluster.together import run_together
    codes = run_together(partial(train, words), settings.jobs.num_ranks)
    failed = [(rank, code) for rank, code in enumerate(codes) if code]
    if failed:
        # Ranks that lost another one end too; the one with a message of its own has the smaller code, 2.
        rank, code = min(failed, key=lambda found: (found[1] != 2, found[1] < 0, found[0]))
        print(f"error: rank {rank} ended with exit code {code}; its message is above", file=sys.stderr)
        # If a signal ended it, its code is negative: return 128 plus the signal, as shells do.
        sys.exit(code if code > 0 else 128 - code)


def with_absolute_paths(words: list[str]) -> list[str]:
    """The settings with absolute paths of workspace and scenario, because the executors run in other folders."""
    result = []
    for word in words:
        name, given, value = word.partition("=")
        if name in PLACES and given:
            word = f"{name}={os.path.abspath(value)}"
        elif result and result[-1] in PLACES:
            word = os.path.abspath(word)
        result.append(word)
    has_workspace = any(word.partition("=")[0] == "--workspace" for word in result)
    return result if has_workspace else [*result, "--workspace", os.path.abspath(Settings().workspace)]


def train(words: list[str], place: "Place", say: Callable[[str], None]) -> int:
    """On an executor: trains as the rank at this place; returns the exit code. words: arguments of training.train."""
    # torchrun's variables, see LAUNCHER_VARIABLES in training/ranks/place.py.
    numbers = {"RANK": place.rank, "WORLD_SIZE": place.world_size}
    numbers |= {"LOCAL_RANK": place.local_rank, "LOCAL_WORLD_SIZE": place.local_size}
    environ = {**os.environ, **{name: str(number) for name, number in numbers.items()}}
    environ["MASTER_ADDR"], environ["MASTER_PORT"] = place.meeting[0], str(place.meeting[1])
    if place.gpus:
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus)
    command = [sys.executable, "-m", "training.train", *words]
    with subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=end_with_parent,
    ) as process:
        for line in process.stdout:
            say(line.rstrip("\n"))
    return process.returncode


def end_with_parent() -> None:
    """Has this process receive SIGTERM, on which a rank saves its state, when Spark kills the task that started it."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    run_command(main)
