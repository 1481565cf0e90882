"""What the ranks do together: the one owner of horovod and torch.distributed."""

import os
import re
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from conf.errors import InputError
from training.ranks.place import LAUNCHER_VARIABLES
from training.ranks.topology import Topology

Made = TypeVar("Made")


class Collectives:
    """The ranks' collective operations; with a single process, each call returns its own input."""

    def __init__(self, topology: Topology):
        """Joins the other ranks. Blocks until all have joined; raises InputError if they cannot connect."""
        self.topology = topology
        self._hvd = None
        if topology.device == "cuda":
            torch.cuda.set_device(topology.local_rank)
        if topology.device == "hpu":
            # The import below reads both. They select eager mode, instead of the lazy mode that Intel is phasing out,
            # and this rank's card, for which horovodrun sets a variable of another name.
            os.environ.setdefault("PT_HPU_LAZY_MODE", "0")
            os.environ.setdefault("LOCAL_RANK", str(topology.local_rank))
            import habana_frameworks.torch.distributed.hccl  # noqa: F401, registers the hpu device and hccl

        if topology.backend == "horovod":
            import horovod.torch as hvd

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

        Returns the model and the optimizer that the loop must use: torch.distributed wraps the model in
        DistributedDataParallel, Horovod wraps the optimizer. The optimizer must be fresh, because its state is not
        sent. backward_passes: largest number of backward passes in a step; their gradients are summed.
        """
        if self._hvd:
            self._hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        # Use the images' memory layout, so that convolutions need not copy.
        model.to(memory_format=torch.channels_last)
        if self._hvd:
            return model, self._hvd.DistributedOptimizer(
                optimizer,
                named_parameters=model.named_parameters(),
                compression=AsStored,
                backward_passes_per_step=backward_passes,
            )
        if self.topology.backend != "none":
            wrapped = nn.parallel.DistributedDataParallel(model)
            # The loop averages BatchNorm's statistics before each validation; sending them every step only costs time.
            # The argument for this has another name in older versions of torch.
            wrapped.broadcast_buffers = False
            return wrapped, optimizer
        return model, optimizer

    def share_batchnorm(self, model: nn.Module) -> nn.Module:
        """Returns the model with BatchNorm's statistics of a step taken over the images of all ranks.

        Raises InputError if the collectives do not support that.
        """
        if self.topology.backend not in ("nccl", "hccl"):
            raise InputError(
                "training.sync_batchnorm needs accelerators and torchrun, but the backend of these ranks is "
                f"{self.topology.backend}: leave it out"
            )
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)

    def compiled(self, model: nn.Module) -> Callable:
        """Compiles the model with torch.compile, using the device's own backend if it has one."""
        return torch.compile(model, backend="hpu_backend" if self.topology.device == "hpu" else "inductor")

    def silent(self, model: nn.Module) -> AbstractContextManager:
        """Sends no gradients during a backward pass that is not the last one of its step."""
        # Horovod counts the passes itself.
        return model.no_sync() if isinstance(model, nn.parallel.DistributedDataParallel) else nullcontext()

    def finish_gradients(self, optimizer: Optimizer) -> None:
        """Waits until the gradients are averaged over the ranks."""
        if self._hvd:
            optimizer.synchronize()

    def step(self, optimizer: Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Updates the weights with gradients that are finished."""
        with optimizer.skip_synchronize() if self._hvd else nullcontext():
            scaler.step(optimizer)

    def broadcast(self, value: object) -> object:
        """Returns rank 0's value on every rank. Values are pickled, as in gather."""
        if self._hvd:
            # By default Horovod names it after its type; the types differ between ranks, and they would wait forever.
            return self._hvd.broadcast_object(value, root_rank=0, name="broadcast")
        if self.topology.backend != "none":
            values = [value]
            torch.distributed.broadcast_object_list(values, src=0)
            return values[0]
        return value

    def from_rank_0(self, make: Callable[[], Made]) -> Made:
        """What make() returns on rank 0, on every rank; every rank raises the InputError that it raises there."""
        made = None
        if self.topology.is_main:
            try:
                made = make()
            except InputError as error:
                made = error
        made = self.broadcast(made)
        if isinstance(made, InputError):
            raise made
        return made

    def gather(self, value: object) -> list:
        """Returns the ranks' values in rank order, on every rank. Values are pickled; the peers are trusted."""
        if self._hvd:
            return self._hvd.allgather_object(value, name="gather")
        if self.topology.backend != "none":
            values = [None] * self.topology.world_size
            torch.distributed.all_gather_object(values, value)
            return values
        return [value]

    def average_statistics(self, model: nn.Module) -> None:
        """Replaces BatchNorm's running statistics with their mean over the ranks; frozen ones are equal anyway."""
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
        """Leaves the group. Call it once, when all work is done."""
        if self._hvd:
            self._hvd.shutdown()
        elif self.topology.backend != "none":
            torch.distributed.destroy_process_group()


class AsStored:
    """Lets Horovod send gradients in the order in which they lie in memory, because it accepts contiguous tensors only.

    Has the interface of horovod.torch.compression.Compressor.
    """

    @staticmethod
    def compress(tensor: Tensor) -> tuple[Tensor, bool]:
        """A contiguous view of a gradient, contiguous or (N, C, H, W) with channels last; whether they are last."""
        is_turned = not tensor.is_contiguous()
        return (tensor.permute(0, 2, 3, 1) if is_turned else tensor), is_turned

    @staticmethod
    def decompress(tensor: Tensor, is_turned: bool) -> Tensor:
        """The gradient with its own dimensions again."""
        return tensor.permute(0, 3, 1, 2) if is_turned else tensor


def join_group(topology: Topology) -> None:
    """Joins torch.distributed's group of all ranks at MASTER_ADDR:MASTER_PORT; raises InputError if that fails."""
    try:
        torch.distributed.init_process_group(topology.backend, rank=topology.rank, world_size=topology.world_size)
    except (torch.distributed.DistError, ValueError) as error:
        place = ":".join(os.environ.get(name, f"(no {name})") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise InputError(
            f"rank {topology.rank} cannot reach the others at {place} ({error!s:.300}): check that rank 0's host "
            "answers there, or choose another MASTER_PORT"
        ) from error


def rejoin() -> None:
    """Joins the remaining ranks, and any new ones, after a rank was lost under `horovodrun --min-np`.

    Blocks until all have joined. Afterwards the launcher's variables describe this process's new rank.
    """
    import horovod.torch as hvd

    hvd.shutdown()
    hvd.init()
    # Horovod updates them in C, but os.environ is a copy from the start of Python.
    place = (hvd.rank(), hvd.size(), hvd.local_rank(), hvd.local_size())
    os.environ.update(zip(LAUNCHER_VARIABLES["horovodrun"], map(str, place), strict=True))


def meeting_place() -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT for torch.distributed under horovodrun: rank 0's host, as the launcher names it."""
    import horovod.torch as hvd

    hvd.init()
    with socket.socket() as free:
        free.bind(("", 0))
        here = {"MASTER_ADDR": os.environ["HOROVOD_HOSTNAME"], "MASTER_PORT": str(free.getsockname()[1])}
    place = hvd.broadcast_object(here, root_rank=0, name="meeting place")
    hvd.shutdown()
    return place


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective raised this error because another rank has ended."""
    if type(error).__name__ == "HorovodInternalError" or isinstance(error, torch.distributed.DistError):
        return True
    # gloo's errors have no type of their own.
    return "gloo" in str(error) and re.search("[Cc]onnection|Read error|[Tt]imed out", str(error)) is not None
