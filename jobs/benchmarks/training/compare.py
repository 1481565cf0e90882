"""How long does a comparison of many finished trainings take, on a test split of ChestX-ray14's size?

    python -m jobs.benchmarks.training.compare                  20 runs, 25,596 films, 14 findings, 1,000 resamples
    python -m jobs.benchmarks.training.compare --runs 5

It makes the files that a training leaves, with drawn labels and logits, once, and links them for every run. Reading
them and the paired differences are timed, without writing tables and figures.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.workspace import Workspace
from conf.writing import write_json
from etl.contract.schema import NIH_FINDINGS
from jobs.benchmarks.training.bootstrap import NUM_IMAGES, NUM_PATIENTS, NUM_RESAMPLES, POSITIVES
from jobs.studies.comparison import compare
from jobs.studies.runs import read_runs
from training.measures.intervals import bootstrap_areas
from training.network.build import build_model
from training.network.checkpoint import BEST, Checkpoint
from training.record.evaluation import describe_intervals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="number of runs to compare")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        first = Workspace.at(f"{folder}/run0")
        make_run(first)
        places = [str(first.root)]
        for number in range(1, runs):
            places.append(f"{folder}/run{number}")
            link_run(first, Workspace.at(places[-1]))
        started = time.perf_counter()
        read = read_runs(places)
        seconds_to_read = time.perf_counter() - started
        compare(read, "run0", 0.8)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = Table("runs", "films", "findings", "resamples", "cores", "seconds", "of which reading", "peak memory")
    sizes = (f"{runs}", f"{NUM_IMAGES:,}", f"{len(NIH_FINDINGS)}", f"{NUM_RESAMPLES:,}")
    cores = f"{len(os.sched_getaffinity(0))}"
    table.add_row(*sizes, cores, f"{seconds:.1f}", f"{seconds_to_read:.1f}", f"{peak:,.0f} MB")
    Console().print(table)


def make_run(workspace: Workspace) -> None:
    """Writes the evaluation, predictions and checkpoint of a training, of drawn labels and logits."""
    rng, findings = np.random.default_rng(0), list(NIH_FINDINGS)
    parts, splits = [], {}
    for split, images in (("val", NUM_IMAGES // 2), ("test", NUM_IMAGES)):
        labels = (rng.random((images, len(findings))) < np.array(POSITIVES) / NUM_IMAGES).astype(np.float32)
        logits = (rng.normal(size=labels.shape) + labels).astype(np.float32)
        patients = np.char.mod("%d", rng.integers(NUM_PATIENTS, size=images))
        rows = {"image_id": np.char.mod(f"{split}%d", np.arange(images)), "patient_id": patients, "split": split}
        parts.append(pd.DataFrame({**rows, "labels": list(labels), "logits": list(logits)}))
        areas = bootstrap_areas(labels, logits, patients, num_resamples=10, seed=0)
        auroc = describe_intervals(findings, areas.auroc)
        splits[split] = {"auroc": auroc, "images": images, "patients": len(np.unique(patients))}
    workspace.root.mkdir(parents=True)
    pd.concat(parts).to_parquet(workspace.predictions)
    neutral = {"logit_shifts": dict.fromkeys(findings, 0.0), "temperatures": dict.fromkeys(findings, 1.0)}
    table = {"delta_table_id": "drawn", "delta_version": 0}
    write_json(workspace.evaluation, {**neutral, **table, "splits": splits, "exclusive": False})
    network = {"model": "densenet121", "size_px": 256, "channels": 1, "tabular": False}
    weights = build_model("densenet121", len(findings), 127.0, 70.0).state_dict()
    story = {"epoch": 1, "val_auroc": 0.5, "run_id": "none", "commit": "none", "settings": {}}
    pixels = {"pixel_mean": 127.0, "pixel_std": 70.0}
    Checkpoint(weights=weights, findings=findings, **network, **story, **pixels, **table).save(
        workspace.checkpoints / BEST
    )


def link_run(made: Workspace, workspace: Workspace) -> None:
    for file in (made.evaluation, made.predictions, made.checkpoints / BEST):
        place = workspace.root / Path(file).relative_to(made.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(file, place)


if __name__ == "__main__":
    run_command(main)
