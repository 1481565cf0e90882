"""Who am I among the ranks: plain arithmetic over the launcher's variables, no process is contacted.

A launcher (horovodrun, torchrun or none) starts the processes; a backend moves the gradients:

    launcher     device      backend    run here
    horovodrun   cpu, cuda   horovod    cpu
    torchrun     cpu         gloo       yes
    torchrun     cuda        nccl       no GPU was at hand
    either       hpu         hccl       no HPU was at hand: no public Horovod speaks to Gaudi from PyTorch, so under
                                        horovodrun the collectives are torch.distributed's
    none         any         none       cpu
"""

import importlib.util
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from conf.errors import InputError

# launcher -> variables that it sets in every process: rank, world size, rank on the host, ranks on the host.
LAUNCHER_VARIABLES = {
    "horovodrun": ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
}
# Launchers that are not spoken here -> where they put the number of processes. Slurm's is the step's, which a batch
# script around a single process or a torchrun does not have.
FOREIGN_LAUNCHERS = {"srun": "SLURM_STEP_NUM_TASKS", "mpirun": "OMPI_COMM_WORLD_SIZE", "mpiexec": "PMI_SIZE"}


@dataclass(frozen=True)
class Topology:
    """Place of this process in the world."""

    launcher: str
    rank: int
    world_size: int
    local_rank: int
    local_size: int
    device: str

    def __post_init__(self):
        equation = (
            f"0 <= rank < world_size and 0 <= local_rank < local_size <= world_size: got rank {self.rank}, "
            f"world_size {self.world_size}, local_rank {self.local_rank}, local_size {self.local_size} "
            f"from {self.launcher}"
        )
        valid = 0 <= self.rank < self.world_size and 0 <= self.local_rank < self.local_size <= self.world_size
        if not valid:
            raise InputError(f"the launcher's variables contradict each other, expected {equation}")

    @classmethod
    def detect(cls, device: str, environ: Mapping[str, str] = os.environ) -> "Topology":
        """Reads the launcher's variables.

        device: `auto`, `cpu`, `cuda` or `hpu`; auto takes cuda where every rank of the host can have a GPU of its own,
        and says so where it leaves one unused. Raises InputError for a device that these ranks cannot compute on, and
        for processes that were started together and cannot find each other.
        """
        launcher, place = _read_launcher(environ)
        topology = cls(launcher, *place, device)
        return replace(topology, device=_choose_device(topology))

    @property
    def backend(self) -> str:
        """horovod, nccl, gloo, hccl, or none for a single process."""
        if self.world_size == 1 and self.launcher == "none":
            return "none"
        if self.device == "hpu":
            return "hccl"
        if self.launcher == "horovodrun":
            return "horovod"
        return "nccl" if self.device == "cuda" else "gloo"

    @property
    def num_hosts(self) -> int:
        """Hosts of this training, where each has as many ranks as this one."""
        return math.ceil(self.world_size / self.local_size)

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that prints, writes and tracks."""
        return self.rank == 0

    @property
    def torch_device(self) -> torch.device:
        """cpu, cuda:<local rank> or hpu."""
        return torch.device("cuda", self.local_rank) if self.device == "cuda" else torch.device(self.device)

    def cpu_threads(self, wanted: int) -> int:
        """CPU threads of this rank: `wanted`, or for 0 an equal share of the host's cores, at least 1.

        Without a limit each rank takes all cores and they wait for each other's spinning threads.
        """
        return wanted or max(1, len(os.sched_getaffinity(0)) // self.local_size)


def launched_rank(environ: Mapping[str, str] = os.environ) -> int:
    """Rank by any launcher's variables, also where they are incomplete; 0 without one."""
    ranks = [environ[rank] for rank, *_ in LAUNCHER_VARIABLES.values() if rank in environ]
    return int(ranks[0]) if ranks else 0


def _read_launcher(environ: Mapping[str, str]) -> tuple[str, tuple[int, ...]]:
    """Name of the launcher, and rank, world size, rank on the host and ranks on the host.

    Raises InputError where other processes run that this one could not find: each would take itself for rank 0 and
    write the same checkpoint.
    """
    for launcher, variables in LAUNCHER_VARIABLES.items():
        if all(variable in environ for variable in variables):
            return launcher, tuple(int(environ[variable]) for variable in variables)
    for launcher, variables in LAUNCHER_VARIABLES.items():
        found = [variable for variable in variables if variable in environ]
        if found:
            missing = [variable for variable in variables if variable not in environ]
            raise InputError(
                f"the environment has {', '.join(found)} and lacks {', '.join(missing)}, of which {launcher} sets all: "
                f"start with {launcher}, or unset {', '.join(found)} to train in one process"
            )
    for launcher, variable in FOREIGN_LAUNCHERS.items():
        processes = int(environ.get(variable, 1))
        if processes > 1:
            raise InputError(
                f"{variable} is {processes}: {launcher} started {processes} processes that cannot find each other: "
                f"use `horovodrun -np {processes} python training/train.py`, or one torchrun per host"
            )
    return "none", (0, 1, 0, 1)


def _choose_device(topology: Topology) -> str:
    """The device that is meant by the wanted one, which may be `auto`. Raises InputError where it cannot be had."""
    wanted = topology.device
    if wanted == "hpu" and importlib.util.find_spec("habana_frameworks") is None:
        raise InputError(
            "training.device is hpu and habana_frameworks is not installed: choose cpu or auto, or install Intel "
            "Gaudi's PyTorch"
        )
    if wanted not in ("auto", "cuda"):
        return wanted
    obstacle = _obstacle_to_cuda(topology)
    if obstacle and wanted == "cuda":
        raise InputError(f"training.device is cuda and {obstacle}")
    if obstacle and torch.cuda.is_available() and topology.is_main:
        print(f"training.device auto takes the CPU and leaves the GPU unused: {obstacle}", flush=True)
    return "cpu" if obstacle else "cuda"


def _obstacle_to_cuda(topology: Topology) -> str:
    """Why these ranks cannot compute on GPUs, with the way out; empty where they can."""
    if not torch.cuda.is_available():
        return "torch sees no GPU: choose cpu or auto, or check the driver"
    if topology.local_size > torch.cuda.device_count():
        return f"this host has {topology.local_size} ranks, GPUs: {torch.cuda.device_count()}; start one rank per GPU"
    if topology.launcher == "horovodrun":
        import horovod.torch as hvd

        if not (hvd.cuda_built() or hvd.rocm_built()):
            return (
                "this Horovod was built without a GPU backend: rebuild it with `HOROVOD_GPU_OPERATIONS=NCCL make "
                "setup`, or start with torchrun"
            )
    return ""
