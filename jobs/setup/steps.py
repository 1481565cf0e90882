"""Runs the steps of the set-up in order; a step runs only if its own check says that it is not done."""

from collections.abc import Callable
from typing import NamedTuple

from jobs.setup import delta_jars, environment, horovod_wheel, installer, spark_conf
from jobs.setup.places import CACHE, only_one


class Step(NamedTuple):
    is_done: Callable[[], bool]
    run: Callable[[], None]


STEPS = (
    Step(environment.are_packages_installed, environment.install_packages),
    Step(horovod_wheel.is_installed, horovod_wheel.install),
    Step(environment.is_project_installed, environment.install_project),
    Step(delta_jars.are_installed, delta_jars.install),
    Step(spark_conf.is_written, spark_conf.write),
)


def is_fetching() -> bool:
    """Whether uv has yet to be fetched, which needs pip."""
    return not all(step.is_done() for step in STEPS) and installer.is_uv_missing()


def is_installing() -> bool:
    """Whether the packages have yet to be installed, which needs disk space."""
    return not environment.are_packages_installed()


def is_building() -> bool:
    """Whether Horovod's wheel has yet to be built, which needs a compiler, make and CMake."""
    return not horovod_wheel.is_installed() and not horovod_wheel.is_cached()


def run_pending() -> int:
    """Runs the unfinished steps, one set-up at a time on this machine; returns how many steps ran."""
    if all(step.is_done() for step in STEPS):
        return 0
    num_run = 0
    with only_one(CACHE / "setup.lock"):
        for step in STEPS:
            if not step.is_done():
                step.run()
                num_run += 1
    return num_run
