"""Does a model that may answer unsure keep its error rate for films of new patients?

    python inference/validate.py --scoring.source FOLDER --validation.site fresh
    python -m jobs.benchmarks.inference.unsure --site fresh --rates 0.05 0.1 0.2
    python -m jobs.benchmarks.inference.unsure --site fresh --patients 600 --splits 2000

The answers are those that a model has given in an external test. Each split draws patients at random, chooses bounds on
their films, and measures the other patients, each of whose films with (or without) a finding weigh as much as another
patient's: that is the chance that the error rate bounds. Only its mean over the splits is promised, not that of each.
"""

import argparse

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from conf.workspace import Workspace
from training.measures.conformal import ABSENT, PRESENT, UNSURE, answers_at, count_patients, fit_bounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", default="runs/demo", help="where inference/validate.py has tested the model")
    parser.add_argument("--site", required=True, help="name of the test, validation.site")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="error rates")
    parser.add_argument("--patients", type=int, default=400, help="patients on whose films the bounds are chosen")
    parser.add_argument("--splits", type=int, default=500, help="random splits of the patients")
    options = parser.parse_args()
    folder = Workspace.at(options.workspace).external(options.site)
    if not (folder / "predictions.parquet").is_file():
        raise InputError(f"{folder} has no predictions.parquet: run `python inference/validate.py` first, see --help")
    findings = pd.read_csv(folder / "findings.csv").finding[:-1].tolist()
    rows = pd.read_parquet(folder / "predictions.parquet")
    labels, probabilities = (np.stack(rows[name].to_numpy()) for name in ("labels", "probabilities"))
    names, patients = np.unique(rows.patient_id, return_inverse=True)
    if len(names) <= options.patients:
        raise InputError(f"--patients is {options.patients}, expected fewer than the {len(names)} patients of the site")
    for rate in options.rates:
        table = Table(
            title=f"error rate {rate:g}: {options.splits} splits, {options.patients} of {len(names)} patients"
        )
        heads = ("patients with", "without", "present, answered absent", "absent, answered present", "unsure")
        for head in ("finding", *heads):
            table.add_column(head, justify="left" if head == "finding" else "right")
        measured = np.array(
            [measure(labels, probabilities, patients, rate, options.patients, seed) for seed in range(options.splits)]
        )
        for place, finding in enumerate(findings):
            counts, shares = np.split(measured[:, place].mean(axis=0), [2])
            table.add_row(finding, *(f"{count:.0f}" for count in counts), *(f"{share:.3f}" for share in shares))
        Console().print(table)


def measure(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray, rate: float, num_chosen: int, seed: int
) -> np.ndarray:
    """(findings, 5): patients with and without the finding among those chosen; shares of the others' films that are
    answered absent with it, answered present without it, and unsure, each patient with one weight."""
    drawn = np.random.default_rng(seed).permutation(patients.max() + 1)[:num_chosen]
    chosen = np.isin(patients, drawn)
    bounds = fit_bounds(labels[chosen], probabilities[chosen], patients[chosen], rate)
    counts = count_patients(labels[chosen], patients[chosen])
    answers, labels, others = answers_at(probabilities[~chosen], bounds), labels[~chosen], patients[~chosen]
    shares = [
        [
            share_of(answers[known, place] == answer, others[known])
            for answer, known in (
                (ABSENT, labels[:, place] == 1),
                (PRESENT, labels[:, place] == 0),
                (UNSURE, np.full(len(labels), True)),
            )
        ]
        for place in range(labels.shape[1])
    ]
    return np.column_stack([*counts, shares])


def share_of(hits: np.ndarray, patients: np.ndarray) -> float:
    """Mean over the patients of the share of their films that are hits; both (films,)."""
    _, index = np.unique(patients, return_inverse=True)
    return float(np.mean(np.bincount(index, hits) / np.bincount(index)))


if __name__ == "__main__":
    run_command(main)
