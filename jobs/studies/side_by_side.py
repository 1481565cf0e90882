"""Runs commands side by side, as many at a time as there are places, each with a log of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from conf.errors import InputError
from conf.programs import end_with_parent, exit_code_of, own_environment
from conf.words import counted

LOOK_EVERY_S = 0.2
KILLED = 128 + signal.SIGKILL
"""exit code of a command that was killed"""
Place = dict[str, str]
"""variables that give a run its devices"""


@dataclass
class Job:
    """Commands to run one after the other; one that fails leaves out the rest."""

    name: str
    commands: list[list[str]]
    log: Path
    begins: int = 0
    """size of the log before the job, whose own lines follow"""
    code: int = 0
    """exit code of the last command that was run, as shells give it"""
    seconds: float = 0.0


@dataclass
class _Running:
    job: Job
    place: Place
    started: float = field(default_factory=time.monotonic)
    process: subprocess.Popen | None = None
    done: int = 0


class Queue:
    """The jobs that wait, run and have ended."""

    def __init__(
        self, jobs: list[Job], places: list[Place], began: Callable[[Job], None], ended: Callable[[Job], None]
    ):
        self.waiting, self.free = list(jobs), list(places)
        self.running: list[_Running] = []
        self.began, self.ended = began, ended
        self.stopped_by = 0
        """signal that has stopped the queue; 0 if none has"""

    def run(self) -> int:
        """Runs all jobs and returns 0. After SIGTERM or Ctrl-C, has the running ones end and returns the signal.

        They get SIGTERM, so that a training saves its state; also if this process is killed.
        """
        with self._signals():
            while self.running or (self.waiting and not self.stopped_by):
                while self.waiting and self.free and not self.stopped_by:
                    running = _Running(self.waiting.pop(0), self.free.pop(0))
                    self.running.append(running)
                    self.began(running.job)
                    running.job.begins = running.job.log.stat().st_size if running.job.log.exists() else 0
                    self._start(running)
                self._look()
                time.sleep(LOOK_EVERY_S)
        return self.stopped_by

    def _start(self, running: _Running) -> None:
        job = running.job
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with job.log.open("ab") as log:
            running.process = _begin(job.commands[running.done], log, running.place)
        if self.stopped_by:
            # The signal came before the process was known here.
            running.process.send_signal(signal.SIGTERM)

    def _look(self) -> None:
        for running in list(self.running):
            code = running.process.poll()
            if code is None:
                continue
            job = running.job
            job.code, job.seconds = exit_code_of(code), time.monotonic() - running.started
            running.done += 1
            if not code and running.done < len(job.commands) and not self.stopped_by:
                self._start(running)
                continue
            self.running.remove(running)
            self.free.append(running.place)
            self.ended(job)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(number: int, _: FrameType | None) -> None:
            self.stopped_by = self.stopped_by or number
            for running in self.running:
                if running.process and running.process.poll() is None:
                    running.process.send_signal(signal.SIGTERM)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _begin(command: list[str], log: BinaryIO, place: Place) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        env={**own_environment(), "PYTHONUNBUFFERED": "1", **place},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        # Ctrl-C goes to a terminal's whole group, and a training would not save its state.
        start_new_session=True,
        preexec_fn=end_with_parent,
    )


def last_words(job: Job) -> str:
    """The last error that a job has logged or, if there is none, its last line."""
    if job.code == KILLED:
        return "killed by another process, or by the system because memory ran out"
    with job.log.open("rb") as log:
        log.seek(job.begins)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["it said nothing"])[-1].strip()


def places(num_ranks: int, at_once: int, num_gpus: int) -> list[Place]:
    """Where runs can work side by side: a run has `num_ranks` GPUs, and its share of the cores.

    at_once: the most runs at a time; 0: as many as the GPUs allow, one without GPUs. Raises InputError if a run needs
    more GPUs than there are, or `at_once` runs do.
    """
    gpus = [str(number) for number in range(num_gpus)]
    if num_gpus and (seen := os.environ.get("CUDA_VISIBLE_DEVICES")):
        gpus = seen.split(",")[:num_gpus]
    if num_gpus and num_ranks > num_gpus:
        raise InputError(f"jobs.num_ranks is {num_ranks}, but {counted(num_gpus, 'GPU')} can be used: lower it")
    most = num_gpus // num_ranks
    if at_once < 0 or (num_gpus and at_once > most):
        raise InputError(f"--at_once is {at_once}, expected 0 or more" + f", at most {most} on these GPUs" * bool(most))
    number = at_once or most or 1
    found = [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[place * num_ranks :][:num_ranks])} for place in range(number)]
    found = found if num_gpus else [{} for _ in range(number)]
    if number > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, len(os.sched_getaffinity(0)) // (number * num_ranks))
        found = [place | {"OMP_NUM_THREADS": str(threads)} for place in found]
    return found
