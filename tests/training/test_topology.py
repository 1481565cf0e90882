import pytest
import torch

from conf.errors import InputError
from training.topology import Collectives, Topology

HOROVOD = {"HOROVOD_RANK": "5", "HOROVOD_SIZE": "8", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "4"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


def test_alone():
    topology = Topology.detect("cpu", {})
    assert (topology.launcher, topology.backend, topology.world_size, topology.is_main) == ("none", "none", 1, True)


def test_horovodrun_is_recognised():
    topology = Topology.detect("cpu", HOROVOD)
    assert (topology.launcher, topology.backend, topology.rank, topology.local_rank) == ("horovodrun", "horovod", 5, 1)
    assert not topology.is_main


def test_torchrun_is_recognised():
    topology = Topology.detect("cpu", TORCHRUN)
    assert (topology.launcher, topology.backend, topology.rank, topology.world_size) == ("torchrun", "gloo", 2, 4)


@pytest.mark.parametrize("environ", [HOROVOD, TORCHRUN])
def test_hpu_talks_hccl_under_either_launcher(environ):
    assert Topology.detect("hpu", environ).backend == "hccl"


def test_cuda_talks_nccl_under_torchrun():
    assert Topology("torchrun", 2, 4, 0, 2, "cuda").backend == "nccl"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="sees no GPU"):
        Topology.detect("cuda", {})


@pytest.mark.parametrize(
    "wrong", [{"HOROVOD_RANK": "8"}, {"HOROVOD_LOCAL_RANK": "4"}, {"HOROVOD_LOCAL_SIZE": "9", "HOROVOD_SIZE": "8"}]
)
def test_contradicting_variables_print_the_equation(wrong):
    with pytest.raises(InputError, match="0 <= rank < world_size"):
        Topology.detect("cpu", {**HOROVOD, **wrong})


def test_threads_are_shared_among_the_hosts_ranks(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    topology = Topology.detect("cpu", HOROVOD)
    assert topology.cpu_threads(0) == 2
    assert topology.cpu_threads(3) == 3
    assert Topology("torchrun", 0, 32, 0, 32, "cpu").cpu_threads(0) == 1


def test_one_process_gathers_itself():
    ranks = Collectives(Topology.detect("cpu", {}))
    assert ranks.gather({"loss": 1.0}) == [{"loss": 1.0}]
    ranks.close()
