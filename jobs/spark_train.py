"""Trains on the executors of a Spark cluster, one task per rank, without another launcher.

    spark-submit --master spark://HOST:7077 jobs/spark_train.py --workspace /shared/chest --jobs.num_ranks 4 \
        --resume auto

All executors see the workspace, because Spark may place rank 0 on any of them. Each rank has as many threads as
spark.task.cpus, or the GPUs that Spark gives its task. Settings and --resume are those of training/train.py. If a rank
fails or an executor is lost, all ranks and this command end. To resume, run it again with --resume auto.
"""

import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from conf.arguments import add_resume, load_arguments, pairs_in, settings_in
from conf.errors import InputError, run_command
from conf.programs import end_with_parent
from conf.settings import Settings
from conf.startup import quick_imports

if TYPE_CHECKING:
    from etl.cluster.together import TaskPlace

READS = ("training", "etl.table", "jobs.num_ranks")
LAST_LINES = 5
"""lines of a failed rank that its error repeats, in case they were lost on the way to the driver"""


def main() -> None:
    description = "Trains on the executors of a Spark cluster, one task per rank."
    settings, options = load_arguments(description, "[--resume [auto]]", add_resume, reads=READS)
    if not settings.jobs.num_ranks:
        raise InputError("jobs.num_ranks is 0, expected the number of ranks: give it with --jobs.num_ranks")
    words, scenario = words_for_executors(settings_in(sys.argv[1:]), settings)
    with quick_imports():
        from etl.cluster.together import run_together
    run_together(partial(train, [*words, "--resume", options.resume], scenario), settings.jobs.num_ranks)


def words_for_executors(words: list[str], settings: Settings) -> tuple[list[str], tuple[str, str]]:
    """The settings as typed, but with absolute paths, since executors run in other folders; path and text of --config.

    words: as settings_in gives them. Without --config, path and text are empty.
    """
    places = {"--workspace": settings.workspace, "--etl.table": settings.etl.table}
    places |= {"--training.cache_dir": settings.training.cache_dir}
    if os.path.exists(settings.training.weights):
        places["--training.weights"] = settings.training.weights
    kept, config = [], ""
    for name, value in pairs_in(words):
        if name == "--config":
            config = value
        elif name not in places:
            kept += [name, value]
    for name, value in places.items():
        if value:
            kept += [name, value if "://" in value else os.path.abspath(value)]
    return kept, (config, Path(config).expanduser().read_text(encoding="utf-8") if config else "")


def train(words: list[str], scenario: tuple[str, str], place: "TaskPlace", say: Callable[[str], None]) -> None:
    """On an executor: trains as the rank at this place. Raises InputError if that fails, which ends the other ranks.

    words, scenario: see words_for_executors.
    """
    # torchrun's variables, see LAUNCHER_VARIABLES in training/ranks/place.py.
    numbers = {"RANK": place.rank, "WORLD_SIZE": place.world_size}
    numbers |= {"LOCAL_RANK": place.local_rank, "LOCAL_WORLD_SIZE": place.local_size}
    environ = {**os.environ, **{name: str(number) for name, number in numbers.items()}}
    environ["MASTER_ADDR"], environ["MASTER_PORT"] = place.meeting[0], str(place.meeting[1])
    if place.gpus:
        environ["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus)
    last: deque[str] = deque(maxlen=LAST_LINES)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        config, text = scenario
        file.write(text)
        file.flush()
        command = [sys.executable, "-m", "training.train", *words]
        with subprocess.Popen(
            [*command, "--config", file.name] if config else command,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Spark may kill the task that starts it.
            preexec_fn=end_with_parent,
        ) as process:
            for line in process.stdout:
                last.append(line.rstrip("\n").replace(file.name, config))
                say(last[-1])
    if process.returncode:
        raise InputError(
            f"rank {place.rank} on {place.host} ended with exit code {process.returncode}. Its last lines:\n"
            + "\n".join(f"  {line}" for line in last)
        )


if __name__ == "__main__":
    run_command(main)
