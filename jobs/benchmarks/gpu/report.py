"""What the check says: the machine, Markdown tables that can be pasted into the docs, and a JSON file."""

import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
import torchvision

from jobs.benchmarks.gpu.plan import Cell

COLUMNS = {
    "model": "{}",
    "size_px": "{}",
    "batch_size": "{}",
    "precision": "{}",
    "layout": "{}",
    "compiled": "{}",
    "batches_from": "{}",
    "images_per_s": "{:,.0f}",
    "ms_per_step": "{:.1f}",
    "tflops": "{:.3g}",
    "share_of_peak": "{:.3f}",
    "peak_memory_gib": "{:.1f}",
    "waiting_share": "{:.2f}",
    "warm_up_s": "{:.1f}",
}
CELL_HEADS = (
    *("model", "px", "batch", "precision", "layout", "compiled", "batches from"),
    *(
        "images/s",
        "ms per step",
        "TFLOP/s",
        "share of peak",
        "peak GiB",
        "share of time waiting",
        "first epoch, s",
    ),
)


def describe_machine(device: str) -> dict[str, str]:
    """Everything that decides how fast the steps are."""
    on_gpu = device == "cuda"
    about = {
        "device": torch.cuda.get_device_name() if on_gpu else "CPU",
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") if on_gpu else "",
        "memory": f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB" if on_gpu else "",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda) if on_gpu else "",
        "cudnn": str(torch.backends.cudnn.version()) if on_gpu else "",
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
        "python": platform.python_version(),
        "cores": str(len(os.sched_getaffinity(0))),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return {name: value for name, value in about.items() if value}


def table_head(*heads: str) -> str:
    return f"{table_row(*heads)}\n|{'---|' * len(heads)}"


def table_row(*values: object) -> str:
    return f"| {' | '.join(map(str, values))} |"


def cell_row(cell: Cell, result: dict) -> str:
    """A row of the table of cells; `result` has the numbers, or the reason why there are none."""
    known = asdict(cell) | {"compiled": "yes" if cell.compiled else "no"}
    if reason := result.get("outcome"):
        return table_row(*known.values(), reason, *[""] * (len(CELL_HEADS) - len(known) - 1))
    values = known | result
    return table_row(*("-" if values[name] is None else form.format(values[name]) for name, form in COLUMNS.items()))


def _output(*command: str) -> str:
    """The first line of what a command prints, or `unknown`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=Path(__file__).parent)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.partition("\n")[0].strip() or "unknown"
