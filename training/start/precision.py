"""The precision in which a training computes: asked for, begun with, or fast on the devices of all ranks."""

from dataclasses import replace

import torch

from training.loop.task import Task
from training.ranks.collectives import Collectives


def settle_precision(task: Task, ranks: Collectives) -> Task:
    """The task with bf16 or fp32 in place of training.precision auto; rank 0 prints the precision and the reason.

    Every rank must call this and gets the same. A training that resumes keeps the precision that it began with, because
    another one would end with other weights.
    """
    wanted = task.settings.training.precision
    if task.interrupted:
        precision, reason = task.interrupted.settings["precision"], "the interrupted training began with it"
    elif wanted == "auto":
        precision, reason = agree(ranks.gather(multiplies_bf16_fast(ranks.topology.torch_device)))
    else:
        precision, reason = wanted, "training.precision asks for it"
    if ranks.topology.is_main:
        print(f"Precision {precision}: {reason}", flush=True)
    training = replace(task.settings.training, precision=precision)
    return replace(task, settings=replace(task.settings, training=training))


def multiplies_bf16_fast(device: torch.device) -> tuple[bool, str]:
    """Whether the device multiplies bfloat16 faster than float32, and the property that decides it.

    CPUs do so with AMX (Intel, Sapphire Rapids and later). Those with AVX-512 BF16 alone save a fifth to four tenths of
    a step (jobs/benchmarks/training/precision.py), which is no reason to round unasked. Nvidia's GPUs do so from
    compute capability 8.0 on (Ampere), AMD's and Gaudi always.
    """
    if device.type == "hpu":
        return True, "Gaudi multiplies bfloat16 fast"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        capability = "{}.{}".format(*torch.cuda.get_device_capability(device))
        return fast, f"{torch.cuda.get_device_name(device)} has compute capability {capability}, bfloat16 needs 8.0"
    amx = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return amx, f"the CPU has {'' if amx else 'no '}AMX"


def agree(answers: list[tuple[bool, str]]) -> tuple[str, str]:
    """bf16 if every rank multiplies it fast, otherwise fp32; and the reason of the first rank that decides.

    answers: multiplies_bf16_fast of each rank. Gradients are averaged over the ranks, so all compute alike.
    """
    for rank, (fast, reason) in enumerate(answers):
        if not fast:
            return "fp32", f"{reason} (rank {rank})" if rank else reason
    return "bf16", answers[0][1]
