"""A host's cores and how its ranks share them: plain arithmetic over Linux's files, nothing is changed.

Formats: Documentation/admin-guide/cputopology.rst, Documentation/ABI/stable/sysfs-devices-node and
Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

SYSTEM, CONTROL_GROUPS, OWN_GROUPS = Path("/sys/devices/system"), Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Core:
    """A physical core, as far as a process may use it."""

    node: int
    """NUMA node whose memory is nearest"""
    cpus: frozenset[int]
    """numbers of its hardware threads that the process may use, at least one"""


def read_cores(allowed: Iterable[int], system: Path = SYSTEM) -> list[Core]:
    """The physical cores of these CPUs, by node and number.

    allowed: numbers of the CPUs that the process may use, as from os.sched_getaffinity. Where `system` does not say
    which CPUs share a core, as in some containers, each is a core of its own; where it names no nodes, all are node 0.
    """
    nodes = {
        cpu: int(path.parent.name.removeprefix("node"))
        for path in system.glob("node/node[0-9]*/cpulist")
        for cpu in parse_cpus(path.read_text())
    }
    members: dict[int, set[int]] = {}
    for cpu in sorted(allowed):
        topology = system / "cpu" / f"cpu{cpu}" / "topology"
        # Kernels before 5.7 have only the second name.
        files = [topology / name for name in ("core_cpus_list", "thread_siblings_list")]
        siblings = next((parse_cpus(file.read_text()) for file in files if file.exists()), set())
        members.setdefault(min(siblings | {cpu}), set()).add(cpu)
    cores = [Core(nodes.get(min(cpus), 0), frozenset(cpus)) for cpus in members.values()]
    return sorted(cores, key=lambda core: (core.node, min(core.cpus)))


def share_cores(cores: list[Core], num_ranks: int) -> list[list[Core]]:
    """Divides a host's cores among its ranks; the rank with the fewest gets as many as possible.

    cores: as from read_cores, at least as many as ranks. No two ranks share a core. Each rank has cores of one node, so
    some cores may be left over; where nodes outnumber ranks, a rank may have several whole nodes instead.
    """
    assert 0 < num_ranks <= len(cores), (num_ranks, len(cores))
    nodes: dict[int, list[Core]] = {}
    for core in cores:
        nodes.setdefault(core.node, []).append(core)
    # The method of D'Hondt: each rank goes where it leaves the most cores for every rank of that node; of equal nodes,
    # to the one with fewer ranks.
    ranks_of = dict.fromkeys(nodes, 0)
    for _ in range(num_ranks):
        ranks_of[max(nodes, key=lambda node: (len(nodes[node]) / (ranks_of[node] + 1), -ranks_of[node]))] += 1
    shares = [share for node, own in nodes.items() for share in _divide(own, ranks_of[node])]
    if num_ranks < len(nodes):
        whole = [list(chain.from_iterable(group)) for group in _divide(list(nodes.values()), num_ranks)]
        shares = max(shares, whole, key=lambda every: min(map(len, every)))
    return shares


def cpu_quota(own_groups: Path = OWN_GROUPS, control_groups: Path = CONTROL_GROUPS) -> float:
    """CPUs whose time this process and its neighbours in a container may take together; infinite without a limit.

    The smallest limit of the process's control groups and their parents counts, in version 1 or 2.
    """
    smallest = math.inf
    lines = own_groups.read_text().splitlines() if own_groups.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = control_groups / "cpu" if controllers else control_groups
        group = top / path.lstrip("/")
        # In a container the path may be the host's, which is absent here; the container's own group is then the top.
        for folder in (group, *group.parents):
            smallest = min(smallest, _quota_in(folder))
            if folder == top:
                break
    return smallest


def parse_cpus(text: str) -> set[int]:
    """Numbers in Linux's list format: `0-3,8` is 0, 1, 2, 3 and 8."""
    ends = [part.split("-") for part in text.strip().split(",") if part]
    return {cpu for first, *last in ends for cpu in range(int(first), int((last or [first])[0]) + 1)}


def describe_cpus(cpus: Iterable[int]) -> str:
    """Numbers in Linux's list format, as parse_cpus reads them."""
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _divide(items: list, parts: int) -> list[list]:
    """Consecutive parts whose lengths differ by one at most."""
    return [items[part * len(items) // parts : (part + 1) * len(items) // parts] for part in range(parts)]


def _quota_in(folder: Path) -> float:
    """Limit of one control group, in CPUs."""
    if (folder / "cpu.max").exists():
        quota, period = (folder / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    if (folder / "cpu.cfs_quota_us").exists():
        quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        return math.inf if quota < 0 else quota / period
    return math.inf
