"""Which cores and how many threads a rank takes, and that all of its threads keep to them.

test_resume.py looks at the cores of running ranks.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conf.settings import Training
from tests.training.commands import PROJECT
from tests.training.ranks.test_cores import TWO_NODES, write_group, write_system
from training.ranks.binding import (
    Choice,
    Host,
    OwnCores,
    Start,
    choose_cores,
    exported_threads,
    openmp_binds,
    settled_cores,
)
from training.ranks.collectives import Collectives
from training.ranks.cores import describe_cpus, parse_cpus
from training.ranks.topology import Topology

ALL = frozenset(range(16))


def host_of(tmp_path: Path, quota: str = "max 100000", nodes: dict = TWO_NODES) -> Host:
    write_group(tmp_path / "groups", cpu__max=quota)
    (tmp_path / "cgroup").write_text("0::/\n")
    return Host(write_system(tmp_path / "system", nodes, 2), tmp_path / "cgroup", tmp_path / "groups")


def rank_of(local_rank: int, local_size: int, device: str = "cpu", launcher: str = "horovodrun") -> Topology:
    return Topology(launcher, local_rank, local_size, local_rank, local_size, device)


def chosen(topology: Topology, host: Host, allowed=ALL, environ=None, **changes) -> tuple[str, int, str]:
    choice = choose_cores(topology, Training(**changes), frozenset(allowed), environ or {}, host)
    return describe_cpus(choice.cpus), choice.threads, choice.unbound


def test_each_rank_gets_cores_of_one_node_and_a_thread_per_core(tmp_path):
    host = host_of(tmp_path)
    assert [chosen(rank_of(rank, 2), host) for rank in range(2)] == [("0-3,8-11", 4, ""), ("4-7,12-15", 4, "")]
    assert [chosen(rank_of(rank, 8), host)[:2] for rank in (0, 7)] == [("0,8", 1), ("7,15", 1)]


def test_one_rank_keeps_all_cpus_and_computes_with_a_thread_per_core(tmp_path):
    assert chosen(rank_of(0, 1), host_of(tmp_path)) == ("0-15", 8, "")


def test_a_choice_is_described_as_linux_lists_cpus():
    assert Choice(frozenset({0, 1, 2, 8}), 4, "").describe() == "0-2,8 with 4 threads"
    assert Choice(frozenset({3}), 1, "").describe() == "3 with 1 thread"


def test_only_cpus_that_the_process_was_started_with_are_taken(tmp_path):
    host = host_of(tmp_path)
    allowed = parse_cpus("2-3,10-11,6,14")
    assert [chosen(rank_of(rank, 3), host, allowed)[0] for rank in range(3)] == ["2,10", "3,11", "6,14"]


def test_more_ranks_than_cores_are_not_bound_and_say_so(tmp_path):
    assert chosen(rank_of(3, 9), host_of(tmp_path)) == ("0-15", 1, "9 ranks share 8 cores")


def test_binding_can_be_switched_off(tmp_path):
    unbound = "training.bind_cores is false"
    assert chosen(rank_of(1, 2), host_of(tmp_path), bind_cores=False) == ("0-15", 4, unbound)


@pytest.mark.parametrize("device", ["cuda", "hpu"])
def test_ranks_on_accelerators_are_not_bound(tmp_path, device):
    assert chosen(rank_of(1, 2, device), host_of(tmp_path)) == ("0-15", 4, f"they compute on {device}")


@pytest.mark.parametrize("name", ["OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"])
def test_openmps_own_binding_wins_and_decides_the_threads(tmp_path, name):
    # With OMP_PROC_BIND, libgomp has bound the main thread to one CPU as soon as torch was imported.
    choice = chosen(rank_of(1, 2), host_of(tmp_path), allowed={5}, environ={name: "true"})
    assert choice == ("5", torch.get_num_threads(), f"the environment has {name}")


@pytest.mark.parametrize(
    ("environ", "names"),
    [
        ({}, []),
        ({"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}, ["OMP_PROC_BIND", "OMP_PLACES"]),
        ({"OMP_PROC_BIND": "FALSE", "OMP_PLACES": "cores"}, []),
        # torch's own OpenMP does not know Intel's variable.
        ({"KMP_AFFINITY": "compact"}, []),
        ({"KMP_AFFINITY": "compact", "LD_PRELOAD": "/opt/lib/libiomp5.so"}, ["KMP_AFFINITY"]),
    ],
)
def test_variables_by_which_openmp_binds_its_threads(tmp_path, environ, names):
    assert openmp_binds(environ) == names
    assert bool(chosen(rank_of(1, 2), host_of(tmp_path), environ=environ)[2]) == bool(names)


@pytest.mark.parametrize(("quota", "threads"), [("200000 100000", 1), ("650000 100000", 3), ("1600000 100000", 4)])
def test_a_containers_quota_limits_the_threads_but_not_the_cores(tmp_path, quota, threads):
    host = host_of(tmp_path, quota)
    assert chosen(rank_of(1, 2), host)[:2] == ("4-7,12-15", threads)
    assert chosen(rank_of(1, 2), host, bind_cores=False)[1] == threads


def test_threads_that_were_asked_for_win(tmp_path):
    host = host_of(tmp_path, "200000 100000")
    assert chosen(rank_of(0, 2), host, threads=7)[1] == 7
    assert chosen(rank_of(0, 2), host, environ={"OMP_NUM_THREADS": "3"})[1] == 3
    assert chosen(rank_of(0, 2), host, environ={"OMP_NUM_THREADS": "3"}, threads=7)[1] == 7


def test_torchruns_own_number_of_threads_is_nobodys_wish():
    # torchrun exports 1 unless the variable is set already.
    assert exported_threads("torchrun", {"OMP_NUM_THREADS": "1"}) == 0
    assert exported_threads("torchrun", {"OMP_NUM_THREADS": "2"}) == 2
    assert exported_threads("horovodrun", {"OMP_NUM_THREADS": "1"}) == 1
    # The number of the outer level; libgomp itself complains about words that are no numbers.
    assert [exported_threads("none", {"OMP_NUM_THREADS": text}) for text in ("4,2", "", "all", "0")] == [4, 0, 0, 0]
    assert exported_threads("none", {}) == 0


def settle(starts: list[tuple[str, str]], host: Host, rank: int, **changes) -> tuple[str, int]:
    """What a rank has once all ranks have told their host and the CPUs that they were started with."""
    started = [Start(name, frozenset(parse_cpus(cpus))) for name, cpus in starts]
    topology = Topology("torchrun", rank, len(starts), 0, 1, "cpu")
    choice = settled_cores(topology, Training(**changes), started, {}, host)
    return describe_cpus(choice.cpus), choice.threads


def test_ranks_that_were_started_with_cores_of_their_own_keep_them(tmp_path):
    host = host_of(tmp_path)
    bound = [("a", "0-1,8-9"), ("a", "4-7,12-15")]
    assert [settle(bound, host, rank) for rank in range(2)] == [("0-1,8-9", 2), ("4-7,12-15", 4)]
    assert settle(bound, host, 1, bind_cores=False) == ("4-7,12-15", 4)


def test_two_launchers_on_one_host_share_what_both_may_use(tmp_path):
    host = host_of(tmp_path)
    assert [settle([("a", "0-15")] * 4, host, rank)[0] for rank in (0, 3)] == ["0-1,8-9", "6-7,14-15"]
    pairs = [("a", "0-3,8-11")] * 2 + [("a", "4-7,12-15")] * 2
    assert [settle(pairs, host, rank)[0] for rank in range(4)] == ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]


def test_ranks_of_other_hosts_do_not_count(tmp_path):
    host = host_of(tmp_path)
    starts = [("a", "0-15"), ("b", "0-15"), ("a", "0-15")]
    assert [settle(starts, host, rank)[0] for rank in range(3)] == ["0-3,8-11", "0-15", "4-7,12-15"]


@given(starts=st.lists(st.sampled_from(["0-15", "0-3,8-11", "4-7,12-15"]), min_size=1, max_size=8))
def test_ranks_started_alike_never_share_a_core(tmp_path_factory, starts):
    host = host_of(tmp_path_factory.mktemp("host"))
    own = [parse_cpus(settle([("a", start) for start in starts], host, rank)[0]) for rank in range(len(starts))]
    for rank, cpus in enumerate(own):
        assert cpus and cpus <= parse_cpus(starts[rank])
        alike = [own[other] for other in range(len(starts)) if starts[other] == starts[rank]]
        if len(alike) * 2 <= len(parse_cpus(starts[rank])):
            assert sum(map(len, alike)) == len(set().union(*alike))


BOUND = """
import json, os, sys, threading
import torch
from conf.settings import Training
from training.ranks.binding import OwnCores
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology

def affinities():
    found = set()
    for thread in os.listdir("/proc/self/task"):
        found.add(tuple(sorted(os.sched_getaffinity(int(thread)))))
    return sorted(found)

# Threads from before the binding, OpenMP's among them.
torch.set_num_threads(2)
torch.randn(2000, 2000).sum()
stop = threading.Event()
threading.Thread(target=stop.wait).start()
before = affinities()
with OwnCores(Topology("horovodrun", 1, 2, 1, 2, "cpu"), Training()):
    torch.randn(2000, 2000).sum()
    reader = threading.Thread(target=stop.wait)
    reader.start()
    inside, threads = affinities(), torch.get_num_threads()
after = affinities()
stop.set()
print(json.dumps([before, inside, threads, after]))
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_all_threads_of_a_rank_keep_to_its_cores_and_are_released_afterwards():
    finished = subprocess.run([sys.executable, "-c", BOUND], cwd=PROJECT, capture_output=True, text=True, check=True)
    before, inside, threads, after = json.loads(finished.stdout)
    (own,) = inside
    (everything,) = before
    assert before == after
    assert 0 < len(own) < len(everything) and set(own) < set(everything)
    assert 1 <= threads <= len(own)


def test_an_error_releases_the_cores_too():
    allowed, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pytest.raises(KeyError), OwnCores(rank_of(0, 2), Training()):
        raise KeyError
    assert os.sched_getaffinity(0) == allowed
    torch.set_num_threads(threads)


def test_a_system_that_refuses_is_told(monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    threads = torch.get_num_threads()
    monkeypatch.setattr("training.ranks.binding.choose_cores", lambda *_: Choice(frozenset(), 1, ""))
    monkeypatch.setattr("os.sched_setaffinity", refuse)
    allowed = os.sched_getaffinity(0)
    with OwnCores(rank_of(0, 2), Training()) as cores:
        assert cores.choice.cpus == allowed
        assert "the system refuses: [Errno 1] Operation not permitted" in cores.choice.unbound
    torch.set_num_threads(threads)


def test_threads_that_end_meanwhile_do_no_harm():
    end = threading.Event()

    def run():
        while not end.is_set():
            thread = threading.Thread(target=lambda: None)
            thread.start()
            thread.join()

    threads = torch.get_num_threads()
    busy = threading.Thread(target=run)
    busy.start()
    for _ in range(50):
        with OwnCores(rank_of(0, 2), Training()):
            pass
    end.set()
    busy.join()
    torch.set_num_threads(threads)


def test_one_process_says_nothing(capsys):
    threads = torch.get_num_threads()
    with OwnCores(Topology.detect("cpu", {}), Training()) as cores:
        cores.settle(Collectives(Topology.detect("cpu", {})))
    assert capsys.readouterr().out == ""
    torch.set_num_threads(threads)
