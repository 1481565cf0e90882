"""Who am I among the ranks, and how do ranks talk: the one owner of horovod and torch.distributed.

A launcher (horovodrun, torchrun or none) starts the processes; a backend moves the gradients:

    launcher     device      backend    run here
    horovodrun   cpu, cuda   horovod    cpu
    torchrun     cpu         gloo       yes
    torchrun     cuda        nccl       no GPU was at hand
    either       hpu         hccl       no HPU was at hand: no public Horovod speaks to Gaudi from PyTorch, so under
                                        horovodrun the collectives are torch.distributed's
    none         any         none       cpu
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from conf.errors import InputError

# launcher -> variables that it sets in every process: rank, world size, rank on the host, ranks on the host.
LAUNCHER_VARIABLES = {
    "horovodrun": ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
}


@dataclass(frozen=True)
class Topology:
    """Place of this process in the world; plain arithmetic, no process is contacted."""

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

        device: `auto`, `cpu`, `cuda` or `hpu`; auto takes cuda where there is one. Raises InputError for a device that
        this machine does not have, or more ranks than devices on the host.
        """
        device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("training.device is cuda and torch sees no GPU: choose cpu or auto, or check the driver")
        launcher, place = "none", (0, 1, 0, 1)
        for name, variables in LAUNCHER_VARIABLES.items():
            if all(variable in environ for variable in variables):
                launcher, place = name, tuple(int(environ[variable]) for variable in variables)
                break
        rank, world_size, local_rank, local_size = place
        if device == "cuda" and local_size > torch.cuda.device_count():
            raise InputError(
                f"{local_size} ranks on this host and {torch.cuda.device_count()} GPUs: start one rank per GPU"
            )
        return cls(launcher, rank, world_size, local_rank, local_size, device)

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


class Collectives:
    """What ranks do together; with one process each call gives back its own input."""

    def __init__(self, topology: Topology):
        """Joins the other ranks. Blocks until all have joined."""
        self.topology = topology
        self._hvd = None
        if topology.device == "cuda":
            torch.cuda.set_device(topology.local_rank)
        if topology.device == "hpu":
            import habana_frameworks.torch.distributed.hccl  # noqa: F401, registers the hpu device and hccl

        if topology.backend == "horovod":
            import horovod.torch as hvd

            if topology.device == "cpu":
                # Horovod asks its peers every millisecond whether gradients are ready, on the cores that compute them.
                os.environ.setdefault("HOROVOD_CYCLE_TIME", "20")
            hvd.init()
            self._hvd = hvd
        elif topology.backend != "none":
            if topology.launcher == "horovodrun":
                os.environ.setdefault("MASTER_ADDR", os.environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", "127.0.0.1"))
                os.environ.setdefault("MASTER_PORT", "29500")
            torch.distributed.init_process_group(topology.backend, rank=topology.rank, world_size=topology.world_size)

    def distribute(self, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """Starts all ranks from rank 0's weights and averages gradients over the ranks from now on.

        Returns what the loop is to call: the model (wrapped by DistributedDataParallel under torchrun) and the
        optimizer (wrapped by Horovod under horovodrun). The optimizer must be fresh: its state is not sent.
        """
        if self._hvd:
            self._hvd.broadcast_parameters(model.state_dict(), root_rank=0)
            return model, self._hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
        if self.topology.backend != "none":
            # The loop averages the buffers before each validation; sending them every step would only cost time.
            wrapped = nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)
            return wrapped, optimizer
        return model, optimizer

    def gather(self, value: object) -> list:
        """The ranks' values in the order of the ranks, on every rank. Values are pickled by trusted peers."""
        if self._hvd:
            return self._hvd.allgather_object(value)
        if self.topology.backend != "none":
            values = [None] * self.topology.world_size
            torch.distributed.all_gather_object(values, value)
            return values
        return [value]

    def average_buffers(self, model: nn.Module) -> None:
        """Replaces floating-point buffers (BatchNorm's running statistics) by their mean over the ranks."""
        for name, buffer in model.named_buffers():
            if not buffer.is_floating_point():
                continue
            if self._hvd:
                buffer.copy_(self._hvd.allreduce(buffer, name=f"buffer.{name}"))
            elif self.topology.backend != "none":
                torch.distributed.all_reduce(buffer)
                buffer.div_(self.topology.world_size)

    def close(self) -> None:
        """Leaves the group; call once, when all work is done."""
        if self._hvd:
            self._hvd.shutdown()
        elif self.topology.backend != "none":
            torch.distributed.destroy_process_group()
