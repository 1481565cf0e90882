"""A host's cores, read from a toy /sys, and how ranks share them."""

import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.ranks.cores import Core, cpu_quota, describe_cpus, parse_cpus, read_cores, share_cores

TWO_NODES = {0: "0-3,8-11", 1: "4-7,12-15"}
"""2 nodes of 4 cores with 2 hardware threads each, numbered as Linux usually does"""


def write_system(folder: Path, nodes: dict[int, str], threads_of_core: int = 1, name: str = "core_cpus_list") -> Path:
    """A toy /sys/devices/system whose cores are n and n + half, n + third, ... of all CPUs."""
    cpus = sorted(set().union(*map(parse_cpus, nodes.values())))
    for node, text in nodes.items():
        path = folder / "node" / f"node{node}" / "cpulist"
        path.parent.mkdir(parents=True)
        path.write_text(f"{text}\n")
    num_cores = len(cpus) // threads_of_core
    for index, cpu in enumerate(cpus):
        path = folder / "cpu" / f"cpu{cpu}" / "topology" / name
        path.parent.mkdir(parents=True)
        path.write_text(f"{describe_cpus(cpus[index % num_cores :: num_cores])}\n")
    # Files beside them that are no CPU and no node.
    (folder / "cpu" / "cpufreq").mkdir()
    (folder / "node" / "possible").write_text("0\n")
    return folder


def cpus_of(share: list[Core]) -> str:
    return describe_cpus(set().union(*(core.cpus for core in share)))


def shares(cores: list[Core], num_ranks: int) -> list[str]:
    return [cpus_of(share) for share in share_cores(cores, num_ranks)]


@pytest.mark.parametrize("name", ["core_cpus_list", "thread_siblings_list"])
def test_two_nodes_of_four_cores_with_two_hardware_threads_each(tmp_path, name):
    cores = read_cores(range(16), write_system(tmp_path, TWO_NODES, 2, name))
    assert [(core.node, describe_cpus(core.cpus)) for core in cores] == [
        *((0, f"{n},{n + 8}") for n in range(4)),
        *((1, f"{n},{n + 8}") for n in range(4, 8)),
    ]
    assert shares(cores, 2) == ["0-3,8-11", "4-7,12-15"]
    assert shares(cores, 4) == ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]
    # The third rank cannot have part of both nodes.
    assert shares(cores, 3) == ["0-1,8-9", "2-3,10-11", "4-7,12-15"]
    assert shares(cores, 8)[-1] == "7,15"


def test_only_allowed_cpus_are_shared(tmp_path):
    system = write_system(tmp_path, TWO_NODES, 2)
    # One hardware thread of core 0, both of cores 1 and 5, nothing else.
    cores = read_cores({8, 1, 9, 5, 13}, system)
    assert [describe_cpus(core.cpus) for core in cores] == ["1,9", "8", "5,13"]
    assert shares(cores, 2) == ["1,8-9", "5,13"]
    assert shares(cores, 3) == ["1,9", "8", "5,13"]


def test_uneven_nodes_give_the_larger_one_more_ranks(tmp_path):
    cores = read_cores(range(8), write_system(tmp_path, {0: "0-5", 1: "6-7"}))
    assert shares(cores, 4) == ["0-1", "2-3", "4-5", "6-7"]
    # The lone core of the second node is left over, because a rank on it would keep the other one waiting.
    assert shares(read_cores(range(7), tmp_path), 2) == ["0-2", "3-5"]


def test_ranks_that_nodes_outnumber_get_whole_nodes_if_that_is_more(tmp_path):
    cores = read_cores(range(16), write_system(tmp_path, {0: "0-3", 1: "4-7", 2: "8-11", 3: "12-15"}))
    assert shares(cores, 2) == ["0-7", "8-15"]
    assert shares(cores, 3) == ["0-3", "4-7", "8-11"]
    # Eight cores of node 0 and one of two others: both ranks are better off on node 0.
    few = [*(Core(0, frozenset({n})) for n in range(8)), Core(1, frozenset({8})), Core(2, frozenset({9}))]
    assert shares(few, 2) == ["0-3", "4-7"]


def test_cpus_that_are_offline_have_no_core(tmp_path):
    system = write_system(tmp_path, {0: "0-1", 1: "4-5"})
    (system / "cpu" / "cpu2").mkdir()
    (system / "cpu" / "online").write_text("0-1,4-5\n")
    cores = read_cores({0, 1, 4, 5}, system)
    assert shares(cores, 2) == ["0-1", "4-5"]


def test_nodes_without_cpus_are_only_memory(tmp_path):
    system = write_system(tmp_path, {0: "0-3"})
    (system / "node" / "node1").mkdir()
    (system / "node" / "node1" / "cpulist").write_text("\n")
    assert shares(read_cores(range(4), system), 2) == ["0-1", "2-3"]


def test_one_node(tmp_path):
    assert shares(read_cores(range(5), write_system(tmp_path, {0: "0-4"})), 2) == ["0-1", "2-4"]


def test_without_any_files_each_cpu_is_a_core_of_node_0(tmp_path):
    cores = read_cores({3, 1, 2}, tmp_path / "absent")
    assert cores == [Core(0, frozenset({n})) for n in (1, 2, 3)]


def test_this_machine():
    allowed = os.sched_getaffinity(0)
    cores = read_cores(allowed)
    assert set().union(*(core.cpus for core in cores)) == allowed
    assert sum(len(core.cpus) for core in cores) == len(allowed)


hosts = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(sizes=hosts, threads=st.integers(1, 3), data=st.data())
def test_shares_are_disjoint_allowed_and_of_one_node(tmp_path_factory, sizes, threads, data):
    total = sum(sizes)
    starts = [sum(sizes[:node]) for node in range(len(sizes))]
    nodes = {
        node: describe_cpus({start + n + total * t for n in range(size) for t in range(threads)})
        for node, (start, size) in enumerate(zip(starts, sizes, strict=True))
    }
    system = write_system(tmp_path_factory.mktemp("system"), nodes, threads)
    allowed = data.draw(st.sets(st.integers(0, total * threads - 1), min_size=1))
    cores = read_cores(allowed, system)
    num_ranks = data.draw(st.integers(1, len(cores)))
    given_out = share_cores(cores, num_ranks)
    assert len(given_out) == num_ranks and all(given_out)
    cpus = [cpu for share in given_out for core in share for cpu in core.cpus]
    assert len(cpus) == len(set(cpus)) and set(cpus) <= allowed
    # The allowed siblings of a hardware thread are always with it.
    assert all(cpu % total == min(core.cpus) % total for share in given_out for core in share for cpu in core.cpus)
    used = len({core.node for core in cores})
    for share in given_out:
        own = {core.node for core in share}
        if num_ranks >= used:
            assert len(own) == 1
        if len(own) > 1:
            assert len(share) == sum(core.node in own for core in cores), "whole nodes"
    # No rank could have more cores if each stays on one node.
    by_node = [sum(core.node == node for core in cores) for node in {core.node for core in cores}]
    best = max(k for k in range(1, max(by_node) + 1) if sum(size // k for size in by_node) >= num_ranks)
    assert min(map(len, given_out)) >= best


@given(st.sets(st.integers(0, 300)))
def test_a_list_of_cpus_is_read_as_it_is_written(cpus):
    assert parse_cpus(describe_cpus(cpus)) == cpus


def write_group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_the_smallest_quota_of_all_parents_counts(tmp_path):
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("0::/pods/one\n")
    assert cpu_quota(own, groups) == math.inf
    write_group(groups / "pods" / "one", cpu__max="max 100000")
    assert cpu_quota(own, groups) == math.inf
    write_group(groups / "pods", cpu__max="250000 100000")
    assert cpu_quota(own, groups) == 2.5
    write_group(groups / "pods" / "one", cpu__max="50000 100000")
    assert cpu_quota(own, groups) == 0.5
    # A file above the top is no control group.
    write_group(tmp_path, cpu__max="1000 100000")
    assert cpu_quota(own, groups) == 0.5


def test_a_container_sees_its_own_group_as_the_top(tmp_path):
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("0::/system.slice/docker-0123.scope\n")
    write_group(groups, cpu__max="400000 100000")
    assert cpu_quota(own, groups) == 4


def test_version_1_of_control_groups(tmp_path):
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text("9:cpuset:/other\n4:cpu,cpuacct:/docker/0123\n0::/\n")
    write_group(groups / "cpu" / "docker", **{"cpu__cfs_quota_us": "-1", "cpu__cfs_period_us": "100000"})
    assert cpu_quota(own, groups) == math.inf
    write_group(groups / "cpu", **{"cpu__cfs_quota_us": "300000", "cpu__cfs_period_us": "100000"})
    assert cpu_quota(own, groups) == 3


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "absent", tmp_path) == math.inf
    assert cpu_quota() > 0
