"""The GPU check runs everywhere, here on the CPU; its parts are tested with what a CPU can do."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import psutil
import pytest
import torch
from packaging.requirements import Requirement

from conf.errors import InputError
from jobs.benchmarks.gpu import __main__, launchers, parts, rank
from jobs.benchmarks.gpu.__main__ import parse_arguments
from jobs.benchmarks.gpu.clock import Clock, TimeIsOver
from jobs.benchmarks.gpu.gradients import compare_gradients
from jobs.benchmarks.gpu.plan import GPU, LOOP, READER, TINY, Cell, cells_of
from jobs.benchmarks.gpu.report import CELL_HEADS, COLUMNS, cell_row
from jobs.benchmarks.gpu.sources import split_of, write_file
from jobs.benchmarks.gpu.steps import measure
from jobs.benchmarks.gpu.work import flops_per_image, peak_tflops
from jobs.benchmarks.training.fed import measured, print_measured
from tests.training.commands import PROJECT
from training.reading.batches import read_batches

BARE = ("torch", "torchvision", "numpy", "pyarrow", "pandas")
# Run by Python before anything else, in every process that is started with its folder on the path.
HIDE = """
import sys
from importlib.machinery import PathFinder
class Bare:
    # torch finds its own backends in its metadata.
    find_distributions = PathFinder.find_distributions
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in {hidden} else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def modules_of_other_packages() -> set[str]:
    """The modules that an environment with the packages in BARE and their dependencies lacks."""
    kept, found = set(), list(BARE)
    while found:
        name = normal(found.pop())
        if name in kept:
            continue
        kept.add(name)
        try:
            needs = [Requirement(need) for need in requires(name) or []]
        except PackageNotFoundError:
            continue
        found += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    # The project itself, and a package that is loaded at each start of Python.
    kept |= {"chexscale", "setuptools"}
    every = packages_distributions()
    return {module for module, packages in every.items() if not kept & {normal(package) for package in packages}}


@pytest.mark.long
def test_it_runs_where_only_torch_and_pyarrow_are_installed(tmp_path):
    hidden = modules_of_other_packages()
    assert {"petastorm", "deltalake", "jsonargparse", "pyspark", "mlflow", "upath", "horovod", "rich"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    output = tmp_path / "gpu.json"
    path = os.pathsep.join([str(tmp_path), str(PROJECT)])
    command = [sys.executable, "-m", "jobs.benchmarks.gpu", "--tiny", "--output", str(output)]
    environment = os.environ | {"PYTHONPATH": path}
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=500, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.startswith("--tiny: measured on the CPU in a tiny setting")
    assert "skipped, petastorm, deltalake, universal-pathlib are not installed" in ended.stdout
    assert "horovodrun | skipped, horovod is not installed" in ended.stdout
    results = json.loads(output.read_text())
    assert len(results["cells"]) == len(cells_of(TINY))
    measured = [row for row in results["cells"] if "outcome" not in row]
    assert {row["batches_from"] for row in measured} == {"memory", LOOP}
    assert all(row["images_per_s"] > 0 for row in measured)
    assert results["launchers"][0]["backend"] == "gloo"


@pytest.fixture
def gpu_scale(monkeypatch):
    """Has the check take a GPU's way through the code on the CPU, with a tiny scale that is not the tiny setting."""
    scale = replace(TINY, models=("simple_cnn",), batch_sizes=(4,), sizes_px=(32,), rows=8)
    for module in (__main__, rank):
        monkeypatch.setattr(module, "GPU", scale)
        # The tiny setting must not be what runs.
        monkeypatch.setattr(module, "TINY", replace(scale, models=("no such model",)))
    monkeypatch.setattr(__main__, "is_available", lambda: True)
    return scale


def test_a_gpus_way_through_the_check_works(tmp_path, monkeypatch, gpu_scale):
    # A launched rank would see the true scales; below it runs by itself.
    monkeypatch.setattr(parts, "COMMANDS", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gpu", "--output", "gpu.json"])
    __main__.main()
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["model"] for row in results["cells"]] == ["simple_cnn"] * len(cells_of(gpu_scale))
    outcomes = [row["outcome"] for part in results.values() for row in part if "outcome" in row]
    assert outcomes == ["skipped, compiling takes a minute on a CPU"]


def test_a_gpus_way_through_a_rank_works(monkeypatch, gpu_scale, capsys):
    monkeypatch.setattr(sys, "argv", ["rank"])
    rank.main()
    result = measured(capsys.readouterr().out)
    assert result["backend"] == "none" and result["losses_apart"] == 0 and result["ratio"] > 0


def test_a_launcher_that_runs_out_of_time_leaves_no_rank_behind(tmp_path, monkeypatch):
    started = tmp_path / "pid"
    script = tmp_path / "rank.py"
    script.write_text(
        f"import os, time, pathlib\nfile = pathlib.Path({str(started)!r})\n"
        "file.with_suffix('.new').write_text(str(os.getpid()))\nfile.with_suffix('.new').rename(file)\ntime.sleep(100)"
    )
    command = [word for word in launchers.COMMANDS["torchrun"] if word not in launchers.MODULE[1:]]
    assert command.pop() == "-m"
    monkeypatch.setitem(launchers.COMMANDS, "torchrun", [*command, str(script)])

    def ring() -> None:
        while not started.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGALRM)

    threading.Thread(target=ring, daemon=True).start()
    with pytest.raises(TimeIsOver), Clock(1).alarm():
        launchers.launch("torchrun", TINY)
    assert not psutil.pid_exists(int(started.read_text()))


def test_a_launcher_that_does_not_end_is_killed(monkeypatch):
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(100)"
    monkeypatch.setitem(launchers.COMMANDS, "torchrun", [sys.executable, "-c", script])
    monkeypatch.setattr(launchers, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(launchers, "ENDING_S", 0.5)
    with pytest.raises(RuntimeError, match=r"exit code -9.*\n.*nothing after 0.5 s"):
        launchers.launch("torchrun", TINY)


def test_a_rank_whose_launcher_was_killed_ends_by_itself():
    script = (
        "import runpy, time\nfrom jobs.benchmarks.gpu import launchers, steps\n"
        "launchers.TIMEOUT_S = 1\nsteps.build_trainer = lambda *_: time.sleep(100)\n"
        "runpy.run_module('jobs.benchmarks.gpu.rank', run_name='__main__')"
    )
    ended = subprocess.run([sys.executable, "-c", script, "--tiny"], cwd=PROJECT, capture_output=True, timeout=90)
    assert ended.returncode == -signal.SIGALRM, ended.stderr


def test_a_cell_reads_with_the_trainings_reader_and_with_pyarrow_alone(tmp_path):
    for batches_from in (READER, LOOP):
        row = measure(Cell("simple_cnn", 32, 8, "fp32", batches_from=batches_from), TINY, tmp_path)
        assert row["images_per_s"] > 0 and row["peak_memory_gib"] is None
    file = write_file(tmp_path, 300, 32)
    splits = [split_of(file, 32, batches_from) for batches_from in (READER, LOOP)]
    names = [[name for b in read_batches(split, 7, shuffle_seed=0) for name in b.image_ids] for split in splits]
    assert sorted(names[0]) == sorted(names[1]) == sorted(map(str, range(300)))


def test_gradients_are_compared(tmp_path, monkeypatch):
    same = compare_gradients("simple_cnn", "fp32 without TF32", TINY, tmp_path)
    assert same["error"] < 1e-6 and same["as_expected"]
    rough = compare_gradients("simple_cnn", "bf16", TINY, tmp_path)
    assert 1e-3 < rough["error"] < 0.2 and rough["as_expected"] is None
    # Stands for a device that computes something else.
    monkeypatch.setattr("jobs.benchmarks.gpu.gradients._on_cpu", lambda *_: torch.ones(1))
    assert compare_gradients("simple_cnn", "fp32 without TF32", TINY, tmp_path)["as_expected"] is False


def test_a_fault_of_one_cell_is_named_and_the_next_one_runs(tmp_path, monkeypatch, capsys):
    def fail(cell, *_):
        if cell.precision == "fp32":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if cell.precision == "fp16":
            raise KeyError("a bug")
        return dict.fromkeys(set(COLUMNS) - set(vars(cell)), 1.0)

    monkeypatch.setattr(parts, "measure", fail)
    results = {"cells": []}
    parts.measure_cells(TINY, tmp_path, results, Clock(1))
    outcomes = [row.get("outcome", "") for row in results["cells"]]
    assert outcomes[:4] == ["", "out of memory", "failed: KeyError: 'a bug'", ""]
    assert outcomes[-1] == "skipped, compiling takes a minute on a CPU"
    printed = capsys.readouterr()
    assert "| simple_cnn | 32 | 8 | fp32 | channels-last | no | memory | out of memory |" in printed.out
    assert "another 2.00 GiB did not fit" in printed.err and "KeyError" in printed.err


def test_what_does_not_fit_into_the_time_is_named(tmp_path):
    clock = Clock(0.05 / 60)
    assert parts.attempt(lambda: time.sleep(5), TINY, clock) == {"outcome": "stopped, the time was over"}
    assert parts.attempt(lambda: {"never": 1}, TINY, clock) == {"outcome": "skipped, the time was over"}
    with pytest.raises(TimeIsOver), clock.alarm():
        time.sleep(5)
    # No alarm is left behind.
    time.sleep(0.01)
    compiled = Cell("resnet50", 224, 128, compiled=True)
    assert "less than 75 s were left" in parts._reason_to_skip(compiled, GPU, Clock(1))["outcome"]
    assert parts._reason_to_skip(compiled, GPU, Clock(2)) == {}


def test_the_plan_changes_one_thing_at_a_time():
    for scale in (GPU, TINY):
        cells = cells_of(scale)
        assert len(set(cells)) == len(cells)
        for model in scale.models:
            base = vars(Cell(model, scale.sizes_px[0], scale.batch_sizes[0]))
            own = [vars(cell) for cell in cells if cell.model == model]
            assert all(sum(base[key] != cell[key] for key in base) <= 1 for cell in own)
            for key in set(base) - {"model"}:
                assert len({cell[key] for cell in own}) > 1


def test_a_row_has_a_value_for_every_column():
    cell = Cell("resnet50", 224, 128)
    assert len(COLUMNS) == len(CELL_HEADS)
    measured = set(COLUMNS) - set(vars(cell))
    for result in (dict.fromkeys(measured, 1.0), dict.fromkeys(measured), {"outcome": "out of memory"}):
        assert cell_row(cell, result).count("|") == len(COLUMNS) + 1


def test_the_work_of_a_step_is_counted():
    # torchvision's documentation gives 4.09 and 2.83 billion multiply-adds for a forward pass at 224 pixels. A backward
    # pass is twice that, without the gradient of the images.
    for model, forward in (("resnet50", 4.09), ("densenet121", 2.83)):
        assert flops_per_image(model, 224) / 1e9 == pytest.approx(3 * 2 * forward, rel=0.03)


def test_the_peak_is_that_of_the_right_device():
    assert peak_tflops("NVIDIA H100 80GB HBM3", "bf16") == 989.4
    assert peak_tflops("NVIDIA H100 PCIe", "bf16") == 756.0
    assert peak_tflops("NVIDIA L40S", "bf16") == 362.05
    assert peak_tflops("NVIDIA L4", "bf16") == 121.0
    assert peak_tflops("Tesla T4", "bf16") is None
    assert peak_tflops("AMD Instinct MI300X", "bf16") is None


@pytest.mark.parametrize(
    ("words", "message"), [(["--minutes", "0"], "expected a number above 0"), (["--output", "no/x"], "is no folder")]
)
def test_wrong_arguments_are_refused(words, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", *words])
    with pytest.raises(InputError, match=message):
        parse_arguments()


def test_what_a_rank_measured_is_found_behind_a_launchers_prefix(capsys):
    print_measured({"ratio": 0.5})
    printed = capsys.readouterr().out.strip()
    assert measured(f"a warning\n[1,0]<stdout>:{printed}\n") == {"ratio": 0.5}
    assert measured("a warning\n") is None
