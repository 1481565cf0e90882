"""Says what was too large for a device, how much memory it has, who uses it, and what to lower."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from conf.errors import InputError
from conf.settings import Training
from conf.words import counted

GIB = 2**30
# Words of torch's allocators, of CUDA, cuBLAS, cuDNN and NCCL. Only torch's allocator for
# GPUs has an error of its own, torch.OutOfMemoryError, with the same words.
TOO_LITTLE = re.compile("out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED", re.IGNORECASE)
HOST = re.compile("DefaultCPUAllocator")
# cudaErrorDevicesUnavailable, in the words of CUDA 10 to 13: another process has the device for itself.
BUSY = re.compile("busy or unavailable", re.IGNORECASE)
OTHERS_MATTER = 0.1
"""share of the memory from which on the other processes are named first"""


class MemoryShortage(InputError):
    """A device, or this machine, has too little memory for what was asked of it."""


@contextmanager
def explained(device: torch.device, what: str, advice: str) -> Iterator[None]:
    """Turns the errors of a device that is too small or busy into an InputError, and lets all others pass.

    what: needed the memory. advice: lets it do with less. Raises MemoryShortage, or InputError for a busy device.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, MemoryError) or _says(TOO_LITTLE, cause) for cause in causes):
            # torch's long text says one thing that _place does not: the size.
            wanted = re.search(r"tried to allocate ([\d.]+ \w+)", " ".join(map(str, causes)), re.IGNORECASE)
            of_host = any(isinstance(cause, MemoryError) or _says(HOST, cause) for cause in causes)
            place, others = _place(torch.device("cpu") if of_host else device)
            asked = f"; another {wanted[1]} did not fit" if wanted else ""
            raise MemoryShortage(f"too little memory for {what}: {place}{asked}. {others}{advice}") from error
        if any(_says(BUSY, cause) for cause in causes):
            raise InputError(
                f"{device} is busy or unavailable: a process that does not share it has it, or it is broken; "
                "`nvidia-smi` shows the processes and the compute mode. End that process, choose another GPU by "
                "CUDA_VISIBLE_DEVICES, or let processes share it by `nvidia-smi -c DEFAULT`"
            ) from error
        raise


def training_step(settings: Training, num_images: int) -> tuple[str, str]:
    """`what` and `advice` of a step of `num_images` images on this rank."""
    parts, side = settings.accumulation, settings.size_px
    images = f"{counted(num_images, 'image')} of {side} x {side} pixels"
    what = f"a training step of {images} on this rank (training.batch_size)"
    if parts > 1:
        what += f" in {parts} parts (training.accumulation)"
    # BatchNorm needs two images.
    if num_images // (2 * parts) >= 2:
        advice = (
            f"Start with --training.accumulation {2 * parts}, which computes a step in smaller parts, and which "
            f"--resume allows too, or lower training.batch_size or training.size_px ({side})"
        )
    else:
        advice = f"Lower training.size_px ({side}), or choose a smaller training.model than {settings.model}"
    return f"{what} with {settings.model} in {settings.precision}", advice


def validation(settings: Training, num_images: int) -> tuple[str, str]:
    """`what` and `advice` of predicting `num_images` images at once, a number that no setting changes."""
    side = settings.size_px
    what = f"predicting {counted(num_images, 'image')} of {side} x {side} pixels with {settings.model}"
    return what, f"Lower training.size_px ({side}), or choose a smaller training.model"


def whole_training(settings: Training) -> tuple[str, str]:
    """`what` and `advice` of everything else that a rank does: its start, the weights, saved states."""
    what = f"a rank that trains {settings.model} with {settings.optimizer}"
    return what, "Choose a smaller training.model, or a device with more memory (training.device)"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that led to it: a compiler raises one of its own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says(pattern: re.Pattern, error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and pattern.search(str(error)) is not None


def _place(device: torch.device) -> tuple[str, str]:
    """The device with its memory, and what to do first if others use much of it."""
    if device.type == "cpu":
        known = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        total, free = (int(known[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        return f"this machine has {total / GIB:.1f} GiB, of which {free / GIB:.1f} GiB are available", ""
    if device.type != "cuda":
        return str(device), ""
    try:
        free, total = torch.cuda.mem_get_info(device)
        name, own = torch.cuda.get_device_name(device), torch.cuda.memory_reserved(device)
    except RuntimeError:
        # CUDA needs some memory itself before it can say anything.
        return f"{device} has no room to start CUDA", "End its other processes (see `nvidia-smi`). "
    return memory_of_gpu(f"{device} ({name})", total, free, own)


def memory_of_gpu(name: str, total: int, free: int, own: int) -> tuple[str, str]:
    """What _place returns for a GPU. total, free: memory of the GPU; own: reserved by this process; all in bytes."""
    others = max(0, total - free - own)
    place = (
        f"{name} has {total / GIB:.1f} GiB, of which this process holds {own / GIB:.1f}, the driver and other "
        f"processes {others / GIB:.1f}, and {free / GIB:.1f} are free"
    )
    if others < OTHERS_MATTER * total:
        return place, ""
    return place, "End the other processes (see `nvidia-smi`), or choose another GPU by CUDA_VISIBLE_DEVICES. "
