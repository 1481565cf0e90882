"""Binds a rank's threads to cores of its own, of one NUMA node, and thereby its memory to that node.

Linux takes a page from the node of the CPU that first writes to it, so a rank binds itself before it allocates, and
needs no libnuma. The threads and processes that it starts later inherit its cores: those of OpenMP, of the collectives,
of the reader and of the evaluation.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from conf.settings import Training
from conf.words import counted
from training.ranks.collectives import Collectives
from training.ranks.cores import (
    CONTROL_GROUPS,
    OWN_GROUPS,
    SYSTEM,
    cpu_quota,
    describe_cpus,
    read_cores,
    share_cores,
)
from training.ranks.topology import Topology

# OpenMP binds its threads itself if one of these is set and OMP_PROC_BIND is not false.
OPENMP_BINDS = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Host:
    """Where Linux describes the host's cores and this process's control groups."""

    system: Path = SYSTEM
    own_groups: Path = OWN_GROUPS
    control_groups: Path = CONTROL_GROUPS


@dataclass(frozen=True)
class Start:
    """How a rank was started."""

    kernel: str
    """the running kernel: ranks with the same one number the same CPUs, even in different containers"""
    cpus: frozenset[int]
    """CPUs that it may use"""


@dataclass(frozen=True)
class Choice:
    """The CPUs and threads of a rank."""

    cpus: frozenset[int]
    threads: int
    unbound: str
    """why it has no cores of its own, or nothing"""

    def describe(self) -> str:
        """Such as `0-3,8-11 with 4 threads`, the CPUs in Linux's list format."""
        return f"{describe_cpus(self.cpus)} with {self.threads} thread{'s' if self.threads > 1 else ''}"


class OwnCores:
    """A context manager in which all threads of this process keep to this rank's cores."""

    def __init__(self, topology: Topology, training: Training):
        self.topology, self.training = topology, training

    def __enter__(self) -> "OwnCores":
        """Takes this rank's share, as if all ranks of the host were started with the same CPUs."""
        self.started = self.now = frozenset(os.sched_getaffinity(0))
        self._take(choose_cores(self.topology, self.training, self.started, os.environ, Host()))
        return self

    def __exit__(self, *_) -> None:
        self._bind(self.started)

    def settle(self, ranks: Collectives) -> None:
        """Corrects the share by what the other ranks were started with, and rank 0 prints it; all ranks call this."""
        start = Start(BOOT_ID.read_text() if BOOT_ID.exists() else "", self.started)
        starts = ranks.gather(start)
        self._take(settled_cores(self.topology, self.training, starts, os.environ, Host()))
        choices = ranks.gather(self.choice)
        if not self.topology.is_main or self.topology.device != "cpu" or len(choices) == 1:
            return
        for reason in dict.fromkeys(choice.unbound for choice in choices if choice.unbound):
            without = [rank for rank, choice in enumerate(choices) if choice.unbound == reason]
            print(f"Ranks without cores of their own: {describe_cpus(without)} ({reason})", flush=True)
        here = [choice for choice, other in zip(choices, starts, strict=True) if other.kernel == start.kernel]
        print(f"CPUs of this host's ranks: {'; '.join(choice.describe() for choice in here)}", flush=True)

    def _take(self, choice: Choice) -> None:
        try:
            self._bind(choice.cpus)
        except OSError as error:
            choice = replace(choice, cpus=self.now, unbound=f"the system refuses: {error}")
        self.choice = choice
        torch.set_num_threads(choice.threads)

    def _bind(self, cpus: frozenset[int]) -> None:
        if cpus == self.now:
            return
        # Linux binds threads, not processes, and some of the libraries have started theirs.
        for thread in os.listdir("/proc/self/task"):
            try:
                os.sched_setaffinity(int(thread), cpus)
            except ProcessLookupError:
                # The thread has ended meanwhile.
                continue
        self.now = cpus


def choose_cores(
    topology: Topology,
    training: Training,
    allowed: frozenset[int],
    environ: Mapping[str, str],
    host: Host,
    place: tuple[int, int] | None = None,
) -> Choice:
    """The CPUs and threads of one of the ranks that share these CPUs.

    allowed: CPUs that they may use. place: number of this rank among those that share them, from 0, and how many these
    are; None: its local rank and the ranks of the host. A rank alone keeps all of them, on whatever nodes they are.
    training.threads decides the number of threads, or else OMP_NUM_THREADS; otherwise a rank has one per physical core,
    because two hardware threads share the units that multiply (Intel, "Maximize PyTorch performance on CPU", and
    PyTorch's performance tuning guide advise it), but no more than its share of the container's quota.
    """
    index, count = place or (topology.local_rank, topology.local_size)
    asked = training.threads or exported_threads(topology.launcher, environ)
    if binds := openmp_binds(environ):
        # The main thread is bound to its own place already, and OpenMP knows all places.
        return Choice(allowed, asked or torch.get_num_threads(), f"the environment has {', '.join(binds)}")
    cores, unbound = read_cores(allowed, host.system), ""
    if topology.device != "cpu":
        unbound = f"they compute on {topology.device}"
    elif count > 1 and not training.bind_cores:
        unbound = "training.bind_cores is false"
    elif count > len(cores):
        unbound = f"{counted(count, 'rank')} share {counted(len(cores), 'core')}"
    own = cores if unbound else share_cores(cores, count)[index] if count > 1 else cores
    share = max(1, len(cores) // count) if unbound else len(own)
    quota = max(1.0, cpu_quota(host.own_groups, host.control_groups) / topology.local_size)
    cpus = frozenset().union(*(core.cpus for core in own))
    return Choice(cpus, asked or int(min(share, quota)), unbound)


def settled_cores(
    topology: Topology, training: Training, starts: list[Start], environ: Mapping[str, str], host: Host
) -> Choice:
    """The CPUs and threads of this rank, given how each rank was started, in rank order.

    Ranks that were started with the same CPUs of the same host share them. A rank that a launcher, numactl or taskset
    has given other CPUs than its neighbours therefore keeps them, and two launchers on one host do not collide.
    """
    own = starts[topology.rank]
    alike = [rank for rank, start in enumerate(starts) if start == own]
    place = alike.index(topology.rank), len(alike)
    return choose_cores(topology, training, own.cpus, environ, host, place)


def openmp_binds(environ: Mapping[str, str]) -> list[str]:
    """The variables by which the user has OpenMP bind its threads itself.

    KMP_AFFINITY is for Intel's OpenMP, if that is loaded before the one that torch brings, which does not know it.
    """
    if environ.get("OMP_PROC_BIND", "").strip().lower() == "false":
        return []
    names = (*OPENMP_BINDS, *["KMP_AFFINITY"] * ("iomp" in environ.get("LD_PRELOAD", "")))
    return [name for name in names if name in environ]


def exported_threads(launcher: str, environ: Mapping[str, str]) -> int:
    """OMP_NUM_THREADS as the user has set it, or 0; torchrun sets 1 where it is not set, which is not the user's wish.

    Of several numbers, for nested levels, the first counts. OpenMP itself reports what is no number.
    """
    first = environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not first.isdigit() or (launcher == "torchrun" and first == "1"):
        return 0
    return int(first)
