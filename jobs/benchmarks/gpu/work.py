"""How much work a step is, and how much a device can do at most."""

import re
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.benchmarks.training.fed import NUM_FINDINGS
from training.loop.trainer import PRECISIONS
from training.network.build import build_model

# Name as torch gives it -> precision -> dense TFLOP/s of the vendor's data sheet, whose numbers with sparsity are twice
# as large. fp32 is TF32 where there is one, because torch's convolutions use it unless told otherwise.
# Sources: the data sheets "NVIDIA H100 Tensor Core GPU" (SXM, NVL), "NVIDIA H100 PCIe GPU", "NVIDIA H200 Tensor Core
# GPU", "NVIDIA A100 Tensor Core GPU", "NVIDIA L40S", "NVIDIA L4 Tensor Core GPU", "NVIDIA T4".
PEAKS = {
    "H200|H100 80GB HBM3|H100 SXM": {"fp32": 494.7, "bf16": 989.4, "fp16": 989.4},
    "H100 NVL": {"fp32": 417.5, "bf16": 835.5, "fp16": 835.5},
    "H100 PCIe": {"fp32": 378.0, "bf16": 756.0, "fp16": 756.0},
    "A100": {"fp32": 156.0, "bf16": 312.0, "fp16": 312.0},
    "L40S": {"fp32": 183.0, "bf16": 362.05, "fp16": 362.05},
    r"L4\b": {"fp32": 60.0, "bf16": 121.0, "fp16": 121.0},
    r"T4\b": {"fp32": 8.1, "fp16": 65.0},
}


def peak_tflops(device_name: str, precision: str) -> float | None:
    """The data sheet's peak; None if it is not known here."""
    for pattern, peaks in PEAKS.items():
        if re.search(pattern, device_name):
            return peaks.get(precision)
    return None


def flops_per_image(model: str, size_px: int) -> float:
    """Floating-point operations of a forward and a backward pass, a multiplication and an addition counting as two.

    Counted by torch's FlopCounterMode: matrix products and convolutions alone, so neither augmentation, BatchNorm nor
    the optimizer. On torch's meta device, which computes nothing.
    """
    network = build_model(model, NUM_FINDINGS, 127, 70, size_px=size_px).to("meta")
    images = network.example_batch(2, size_px, "meta")
    with FlopCounterMode(display=False) as counter:
        network(*images).sum().backward()
    return counter.get_total_flops() / len(images[0])


def matrix_tflops(device: torch.device, precision: str, side: int) -> float:
    """TFLOP/s of the product of two square matrices with random numbers, the mean of ten after three to warm up."""
    was = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    left, right = (torch.randn(side, side, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
    for repetition in range(13):
        if repetition == 3:
            wait(device)
            started = time.perf_counter()
        left @ right
    wait(device)
    torch.backends.cuda.matmul.allow_tf32 = was
    return 10 * 2 * side**3 / (time.perf_counter() - started) / 1e12


def wait(device: torch.device) -> None:
    """Waits until the device has computed everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
