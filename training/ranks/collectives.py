"""What ranks do together: the one owner of horovod and torch.distributed."""

import os
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from conf.errors import InputError
from training.ranks.topology import LAUNCHER_VARIABLES, Topology


class Collectives:
    """What ranks do together; with one process each call gives back its own input."""

    def __init__(self, topology: Topology):
        """Joins the other ranks. Blocks until all have joined; raises InputError where they cannot meet."""
        self.topology = topology
        self._hvd = None
        if topology.device == "cuda":
            torch.cuda.set_device(topology.local_rank)
        if topology.device == "hpu":
            # Both are read when the module is imported: eager mode instead of the lazy one that Intel is giving up, and
            # the card of this rank, which horovodrun does not name so.
            os.environ.setdefault("PT_HPU_LAZY_MODE", "0")
            os.environ.setdefault("LOCAL_RANK", str(topology.local_rank))
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
                os.environ.update(meeting_place())
            join_group(topology)

    def distribute(
        self, model: nn.Module, optimizer: Optimizer, backward_passes: int = 1
    ) -> tuple[nn.Module, Optimizer]:
        """Starts all ranks from rank 0's weights and averages gradients over the ranks from now on.

        Returns what the loop is to call: the model (wrapped by DistributedDataParallel under torchrun) and the
        optimizer (wrapped by Horovod under horovodrun). The optimizer must be fresh: its state is not sent.
        backward_passes: most of them in a step; their gradients are summed.
        """
        if self._hvd:
            self._hvd.broadcast_parameters(model.state_dict(), root_rank=0)
            names = model.named_parameters()
            return model, self._hvd.DistributedOptimizer(
                optimizer, named_parameters=names, backward_passes_per_step=backward_passes
            )
        # As the images are laid out, so that convolutions need not copy; Horovod takes no tensors like that.
        model.to(memory_format=torch.channels_last)
        if self.topology.backend != "none":
            # The loop averages the statistics before each validation; sending them every step would only cost time.
            wrapped = nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)
            return wrapped, optimizer
        return model, optimizer

    def share_batchnorm(self, model: nn.Module) -> nn.Module:
        """The model with BatchNorm's statistics of a step over the images of all ranks.

        Raises InputError where the collectives cannot do that.
        """
        if self.topology.backend not in ("nccl", "hccl"):
            raise InputError(
                "training.sync_batchnorm needs accelerators and torchrun, these ranks speak by "
                f"{self.topology.backend}: leave it out"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def compiled(self, model: nn.Module) -> Callable:
        """The model by torch.compile, with the device's own backend where it has one."""
        return torch.compile(model, backend="hpu_backend" if self.topology.device == "hpu" else "inductor")

    def silent(self, model: nn.Module) -> AbstractContextManager:
        """For a backward pass after which another one of the same step follows: nothing is sent."""
        # Horovod counts the passes instead.
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()

    def finish_gradients(self, optimizer: Optimizer) -> None:
        """Waits until the gradients are the averages over the ranks."""
        if self._hvd:
            optimizer.synchronize()

    def step(self, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Changes the weights by gradients that are finished."""
        with optimizer.skip_synchronize() if self._hvd else nullcontext():
            scaler.step(optimizer)

    def broadcast(self, value: object) -> object:
        """Rank 0's value on every rank. Pickled, as in gather."""
        if self._hvd:
            # Named, or Horovod would name it by its type, which is another one on the other ranks, and wait for ever.
            return self._hvd.broadcast_object(value, root_rank=0, name="broadcast")
        if self.topology.backend != "none":
            values = [value]
            torch.distributed.broadcast_object_list(values, src=0)
            return values[0]
        return value

    def gather(self, value: object) -> list:
        """The ranks' values in the order of the ranks, on every rank. Values are pickled by trusted peers."""
        if self._hvd:
            return self._hvd.allgather_object(value, name="gather")
        if self.topology.backend != "none":
            values = [None] * self.topology.world_size
            torch.distributed.all_gather_object(values, value)
            return values
        return [value]

    def average_statistics(self, model: nn.Module) -> None:
        """Replaces BatchNorm's running statistics by their mean over the ranks; frozen ones are the same on all."""
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
        statistics = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
        if not statistics or self.topology.backend == "none":
            return
        together = torch.cat(statistics)
        if self._hvd:
            together = self._hvd.allreduce(together, name="statistics")
        else:
            torch.distributed.all_reduce(together)
            together.div_(self.topology.world_size)
        for buffer, mean in zip(statistics, together.split([len(buffer) for buffer in statistics]), strict=True):
            buffer.copy_(mean)

    def close(self) -> None:
        """Leaves the group; call once, when all work is done."""
        if self._hvd:
            self._hvd.shutdown()
        elif self.topology.backend != "none":
            torch.distributed.destroy_process_group()


def join_group(topology: Topology) -> None:
    """torch.distributed's group of all ranks, who meet at MASTER_ADDR:MASTER_PORT."""
    try:
        torch.distributed.init_process_group(topology.backend, rank=topology.rank, world_size=topology.world_size)
    except (torch.distributed.DistError, ValueError) as error:
        place = ":".join(os.environ.get(name, f"(no {name})") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise InputError(
            f"rank {topology.rank} cannot meet the others at {place} ({error!s:.300}): see that rank 0's host answers "
            "there, or choose another MASTER_PORT"
        ) from error


def rejoin() -> None:
    """Joins the ranks that are left, and new ones, after one was lost under `horovodrun --min-np`.

    Blocks until all have joined; afterwards the launcher's variables are those of the new rank.
    """
    import horovod.torch as hvd

    hvd.shutdown()
    hvd.init()
    # Horovod renews them in C, of which os.environ is a copy from the start of Python.
    place = (hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size())
    os.environ.update(zip(LAUNCHER_VARIABLES["horovodrun"], map(str, place), strict=True))


def meeting_place() -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for torch.distributed under horovodrun: rank 0's host, as the launcher calls it."""
    import horovod.torch as hvd

    hvd.init()
    with socket.socket() as free:
        free.bind(("", 0))
        here = {"MASTER_ADDR": os.environ["HOROVOD_HOSTNAME"], "MASTER_PORT": str(free.getsockname()[1])}
    place = hvd.broadcast_object(here, root_rank=0, name="meeting place")
    hvd.shutdown()
    return place


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective raised it because another rank has ended."""
    if type(error).__name__ == "HorovodInternalError" or isinstance(error, torch.distributed.DistError):
        return True
    # gloo's have no type of their own.
    return "gloo" in str(error) and re.search("[Cc]onnection|Read error|[Tt]imed out", str(error)) is not None
