import re
import socket
from pathlib import Path

import pytest
import torch
from horovod.common.exceptions import HorovodInternalError

from conf.errors import InputError
from training.ranks.collectives import Collectives, is_lost_rank
from training.ranks.place import launched_place
from training.ranks.topology import Topology

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


@pytest.mark.parametrize("launcher", ["horovodrun", "torchrun"])
def test_hpu_uses_hccl_under_either_launcher(launcher):
    assert Topology(launcher, 2, 4, 0, 2, "hpu").backend == "hccl"


def test_hpu_without_gaudis_software_is_refused():
    with pytest.raises(InputError, match=r"training.device is hpu but habana_frameworks is not installed: choose"):
        Topology.detect("hpu", {})


def test_cuda_uses_nccl_under_torchrun():
    assert Topology("torchrun", 2, 4, 0, 2, "cuda").backend == "nccl"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="sees no GPU"):
        Topology.detect("cuda", {})


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch see a number of GPUs, and Horovod look built for them or not."""

    def pretend(number: int, horovod_built: bool = True):
        monkeypatch.setattr("torch.cuda.is_available", lambda: number > 0)
        monkeypatch.setattr("torch.cuda.device_count", lambda: number)
        monkeypatch.setattr("horovod.torch.cuda_built", lambda: horovod_built)

    return pretend


RANK_0 = {"HOROVOD_RANK": "0", "HOROVOD_LOCAL_RANK": "0"}


def test_auto_takes_a_gpu_per_rank(gpus, capsys):
    gpus(4)
    assert Topology.detect("auto", {**HOROVOD, **RANK_0}).device == "cuda"
    assert Topology.detect("auto", TORCHRUN).device == "cuda"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("environ", [HOROVOD, {**TORCHRUN, "LOCAL_WORLD_SIZE": "4"}])
def test_more_ranks_than_gpus_are_refused_and_never_moved_to_the_cpu(gpus, device, environ):
    gpus(3)
    with pytest.raises(InputError, match=r"4 ranks, expected at most one per GPU, and torch sees 3: start 3 per host"):
        Topology.detect(device, environ)
    assert Topology.detect("cpu", environ).device == "cpu"


@pytest.mark.parametrize(("horovod_built", "backend"), [(True, "horovod"), (False, "nccl")])
def test_gpus_under_horovodrun_need_no_horovod_with_nccl(gpus, horovod_built, backend):
    gpus(4, horovod_built)
    topology = Topology.detect("auto", HOROVOD)
    assert (topology.device, topology.backend) == ("cuda", backend)


def test_one_process_says_that_it_leaves_gpus_unused(gpus, capsys):
    gpus(4)
    assert Topology.detect("auto", {}).device == "cuda"
    assert capsys.readouterr().out.startswith("One of 4 GPUs is used; `horovodrun -np 4 python training/train.py` uses")
    gpus(1)
    Topology.detect("auto", {})
    assert capsys.readouterr().out == ""


def test_auto_without_a_gpu_says_nothing(gpus, capsys):
    gpus(0)
    assert Topology.detect("auto", {}).device == "cpu"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "environ", [{"SLURM_STEP_NUM_TASKS": "8"}, {"OMPI_COMM_WORLD_SIZE": "8"}, {"PMI_SIZE": "8", "PMI_RANK": "0"}]
)
def test_processes_of_an_unknown_launcher_are_refused(environ):
    with pytest.raises(InputError, match=r"started 8 processes that cannot find each other: use .*`horovodrun -np 8 "):
        Topology.detect("cpu", environ)
    assert Topology.detect("cpu", {**environ, **TORCHRUN}).launcher == "torchrun"


def test_processes_of_srun_are_led_to_the_ready_job_file():
    with pytest.raises(InputError, match=r"use `sbatch jobs/slurm/training.sbatch`, `horovodrun -np 2 ") as error:
        Topology.detect("cpu", {"SLURM_STEP_NUM_TASKS": "2"})
    assert (Path(__file__).parents[3] / re.search(r"sbatch (\S+)`", str(error.value))[1]).is_file()


def test_one_process_of_a_cluster_job_is_alone():
    assert Topology.detect("cpu", {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "PMI_SIZE": "1"}).launcher == "none"


@pytest.mark.parametrize(("complete", "missing"), [(HOROVOD, "HOROVOD_LOCAL_SIZE"), (TORCHRUN, "LOCAL_RANK")])
def test_an_incomplete_set_of_variables_is_refused(complete, missing):
    environ = {name: value for name, value in complete.items() if name != missing}
    with pytest.raises(InputError, match=rf"lacks {missing}; (horovodrun|torchrun) sets all of these: start with"):
        Topology.detect("cpu", environ)


def test_the_rank_is_known_even_if_the_rest_is_not():
    assert launched_place({}) == (0, 0)
    assert launched_place(TORCHRUN) == (2, 0)
    assert launched_place(HOROVOD) == (5, 1)
    assert launched_place({"HOROVOD_RANK": "3"}) == (3, 0)


@pytest.mark.parametrize(
    "wrong", [{"HOROVOD_RANK": "8"}, {"HOROVOD_LOCAL_RANK": "4"}, {"HOROVOD_LOCAL_SIZE": "9", "HOROVOD_SIZE": "8"}]
)
def test_contradicting_variables_print_the_equation(wrong):
    with pytest.raises(InputError, match="0 <= rank < world_size"):
        Topology.detect("cpu", {**HOROVOD, **wrong})


def test_one_process_gathers_its_own_value():
    ranks = Collectives(Topology.detect("cpu", {}))
    assert ranks.gather({"loss": 1.0}) == [{"loss": 1.0}]
    ranks.close()


def test_batchnorm_over_the_ranks_needs_accelerators():
    with pytest.raises(
        InputError, match=r"sync_batchnorm needs accelerators and torchrun, but the backend of these ranks is none"
    ):
        Collectives(Topology.detect("cpu", {})).share_batchnorm(torch.nn.BatchNorm2d(1))


def test_a_port_in_use_is_reported(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(InputError, match=f"rank 0 cannot reach the others at 127.0.0.1:{port} .*EADDRINUSE"):
            Collectives(Topology("torchrun", 0, 2, 0, 2, "cpu"))


def test_a_lost_rank_is_distinguished_from_other_faults():
    lost = "[../third_party/gloo/gloo/transport/tcp/pair.cc:589] Connection closed by peer [127.0.0.1]:80"
    for error in (RuntimeError(lost), HorovodInternalError("lost"), torch.distributed.DistBackendError("lost")):
        assert is_lost_rank(error)
    assert not is_lost_rank(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
