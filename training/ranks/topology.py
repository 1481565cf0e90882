"""This process's place among the ranks: plain arithmetic over the launcher's variables, no process is contacted.

A launcher (horovodrun, torchrun or none) starts the processes, and a backend exchanges the gradients:

    launcher     device   backend   run here
    horovodrun   cpu      horovod   yes
    horovodrun   cuda     horovod   no GPU was available; if Horovod was built with NCCL
    horovodrun   cuda     nccl      no GPU was available; otherwise: torch.distributed's NCCL, which comes with torch
    torchrun     cpu      gloo      yes
    torchrun     cuda     nccl      no GPU was available
    either       hpu      hccl      no HPU was available; no public Horovod supports Gaudi from PyTorch
    none         any      none      cpu

Where the backend is not Horovod's, horovodrun only starts the ranks and tells them where rank 0 is.
"""

import importlib.util
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from conf.errors import InputError
from training.ranks.place import LAUNCHER_VARIABLES

# Unsupported launcher -> variable that holds its number of processes. Slurm's is the variable of a job step, which is
# not set in a batch script around a single process or a torchrun.
FOREIGN_LAUNCHERS = {"srun": "SLURM_STEP_NUM_TASKS", "mpirun": "OMPI_COMM_WORLD_SIZE", "mpiexec": "PMI_SIZE"}
# What starts one torchrun per host under that launcher's scheduler.
READY_FILES = {"srun": "`sbatch jobs/slurm/training.sbatch`, "}


@dataclass(frozen=True)
class Topology:
    """The place of this process among all processes, and its device."""

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

        device: `auto`, `cpu`, `cuda` or `hpu`; auto takes cuda if torch sees a GPU, otherwise cpu. Raises InputError
        for a device that these ranks cannot compute on, for more ranks on a host than GPUs (even if auto could take the
        CPU, on which a training may take a year), and for processes that were started together but cannot find each
        other.
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
        if self.device == "cuda" and not (self.launcher == "horovodrun" and _horovod_uses_gpus()):
            return "nccl"
        return "horovod" if self.launcher == "horovodrun" else "gloo"

    @property
    def num_hosts(self) -> int:
        """Number of hosts of this training, if each has as many ranks as this one."""
        return math.ceil(self.world_size / self.local_size)

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that prints, writes and tracks."""
        return self.rank == 0

    @property
    def torch_device(self) -> torch.device:
        """cpu, cuda:<local rank> or hpu."""
        return torch.device("cuda", self.local_rank) if self.device == "cuda" else torch.device(self.device)


def _read_launcher(environ: Mapping[str, str]) -> tuple[str, tuple[int, ...]]:
    """Name of the launcher, and rank, world size, rank on the host and ranks on the host.

    Raises InputError if there are other processes that this one cannot find: each would take itself for rank 0 and
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
                f"the environment has {', '.join(found)} but lacks {', '.join(missing)}; {launcher} sets all of these: "
                f"start with {launcher}, or unset {', '.join(found)} to train in one process"
            )
    for launcher, variable in FOREIGN_LAUNCHERS.items():
        processes = int(environ.get(variable, 1))
        if processes > 1:
            raise InputError(
                f"{variable} is {processes}, so {launcher} started {processes} processes that cannot find each other: "
                f"use {READY_FILES.get(launcher, '')}`horovodrun -np {processes} python training/train.py`, or one "
                "torchrun per host"
            )
    return "none", (0, 1, 0, 1)


def _choose_device(topology: Topology) -> str:
    """The device to use for the wanted one, which may be `auto`. Raises InputError if it is not available."""
    wanted = topology.device
    if wanted == "hpu" and importlib.util.find_spec("habana_frameworks") is None:
        raise InputError(
            "training.device is hpu but habana_frameworks is not installed: choose cpu or auto, or install Intel "
            "Gaudi's PyTorch"
        )
    if wanted not in ("auto", "cuda"):
        return wanted
    if not torch.cuda.is_available():
        if wanted == "auto":
            return "cpu"
        raise InputError(
            "training.device is cuda, but torch sees no GPU: check the driver and CUDA_VISIBLE_DEVICES, or choose cpu"
        )
    gpus = torch.cuda.device_count()
    if topology.local_size > gpus:
        raise InputError(
            f"this host has {topology.local_size} ranks, expected at most one per GPU, and torch sees {gpus}: start "
            f"{gpus} per host, or compute on the CPU with --training.device cpu"
        )
    if topology.launcher == "none" and gpus > 1:
        print(f"One of {gpus} GPUs is used; `horovodrun -np {gpus} python training/train.py` uses all.", flush=True)
    return "cuda"


def _horovod_uses_gpus() -> bool:
    """Whether the installed Horovod was built with operations for GPUs."""
    import horovod.torch as hvd

    return hvd.cuda_built() or hvd.rocm_built()
