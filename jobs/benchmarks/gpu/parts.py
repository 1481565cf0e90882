"""The parts of the check, in their order. Each prints a table row by row and adds its rows to the results."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from jobs.benchmarks.gpu.clock import Clock, TimeIsOver
from jobs.benchmarks.gpu.gradients import COMPARED, compare_gradients
from jobs.benchmarks.gpu.launchers import COMMANDS, launch
from jobs.benchmarks.gpu.plan import READER, Cell, Scale, cells_of
from jobs.benchmarks.gpu.report import CELL_HEADS, cell_row, table_head, table_row
from jobs.benchmarks.gpu.sources import missing_for_reader
from jobs.benchmarks.gpu.steps import forget, measure
from jobs.benchmarks.gpu.work import matrix_tflops, peak_tflops
from training.loop.shortage import MemoryShortage, explained
from training.loop.trainer import PRECISIONS

COMPILING_S = 75
"""time left below which no compiled cell is begun"""
FAILED = "failed: "


def attempt(work: Callable[[], dict], scale: Scale, clock: Clock) -> dict:
    """What `work` returns, or an `outcome` that says why there is nothing."""
    if clock.left_s <= 0:
        return {"outcome": "skipped, the time was over"}
    try:
        with clock.alarm(), explained(torch.device(scale.device), "this", ""):
            return work()
    except TimeIsOver:
        return {"outcome": "stopped, the time was over"}
    except MemoryShortage as error:
        print(error, file=sys.stderr, flush=True)
        return {"outcome": "out of memory"}
    # One fault must not cost the other measurements of a machine that is lent for minutes.
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        first_line = (str(error).strip().splitlines() or [""])[0]
        return {"outcome": f"{FAILED}{type(error).__name__}: {first_line:.150}"}
    finally:
        forget(scale.device)


def show_peaks(scale: Scale, folder: Path, results: dict, clock: Clock) -> None:
    """The data sheet's peaks, and what a large matrix product reaches."""
    print("\n" + table_head("precision", "data sheet, TFLOP/s", f"product of {scale.matrix} x {scale.matrix}, TFLOP/s"))
    device = torch.device(scale.device)
    for precision in PRECISIONS:
        peak = peak_tflops(torch.cuda.get_device_name(), precision) if scale.device == "cuda" else None
        row = {"precision": precision, "peak_tflops": peak}
        row |= attempt(lambda one=precision: {"matrix_tflops": matrix_tflops(device, one, scale.matrix)}, scale, clock)
        results["peaks"].append(row)
        reached = row.get("outcome") or f"{row['matrix_tflops']:.3g}"
        print(table_row(precision, "unknown" if peak is None else peak, reached), flush=True)


def check_gradients(scale: Scale, folder: Path, results: dict, clock: Clock) -> None:
    """The gradients of one step beside the CPU's."""
    print("\n" + table_head("gradients of", "precision", "error / norm on the CPU in fp32", "cosine", "as expected"))
    for model in scale.models:
        for precision in COMPARED:
            row = {"model": model, "precision": precision}
            row |= attempt(lambda m=model, p=precision: compare_gradients(m, p, scale, folder), scale, clock)
            results["gradients"].append(row)
            shown = [row["outcome"], ""] if "outcome" in row else [f"{row['error']:.1e}", f"{row['cosine']:.6f}"]
            print(table_row(model, precision, *shown, _verdict(row)), flush=True)


def check_launchers(scale: Scale, folder: Path, results: dict, clock: Clock) -> None:
    """One rank under each launcher beside a single process."""
    heads = ("one rank under", "collectives", "largest difference of a loss", "images/s / those alone", "as expected")
    print("\n" + table_head(*heads))
    for launcher in COMMANDS:
        row = {"launcher": launcher} | attempt(lambda one=launcher: launch(one, scale), scale, clock)
        results["launchers"].append(row)
        if "outcome" in row:
            shown = [row["outcome"], "", ""]
        else:
            shown = [row["backend"], f"{row['losses_apart']:.1e}", f"{row['ratio']:.2f}"]
        print(table_row(launcher, *shown, _verdict(row)), flush=True)


def measure_cells(scale: Scale, folder: Path, results: dict, clock: Clock) -> None:
    """Speed and memory of each cell."""
    print("\n" + table_head(*CELL_HEADS))
    for cell in cells_of(scale):
        result = _reason_to_skip(cell, scale, clock) or attempt(
            lambda one=cell: measure(one, scale, folder), scale, clock
        )
        results["cells"].append(asdict(cell) | result)
        print(cell_row(cell, result), flush=True)


def _reason_to_skip(cell: Cell, scale: Scale, clock: Clock) -> dict:
    if cell.batches_from == READER and (missing := missing_for_reader()):
        verb = "is" if len(missing) == 1 else "are"
        return {"outcome": f"skipped, {', '.join(missing)} {verb} not installed"}
    if cell.compiled and not scale.compiles:
        return {"outcome": "skipped, compiling takes a minute on a CPU"}
    if cell.compiled and 0 < clock.left_s < COMPILING_S:
        return {"outcome": f"skipped, less than {COMPILING_S} s were left"}
    return {}


def _verdict(row: dict) -> str:
    return {True: "yes", False: "NO", None: ""}[row.get("as_expected")]
