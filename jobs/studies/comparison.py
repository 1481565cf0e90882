"""Compares runs on the same test films: AUROCs with intervals, and paired differences to one of them, by patient."""

from dataclasses import dataclass

import pandas as pd

from jobs.studies.runs import Run
from training.measures.intervals import differences_to
from training.record.evaluation import NUM_RESAMPLES, describe_intervals

MEAN = "mean"


@dataclass(frozen=True)
class Comparison:
    """Runs beside a reference run."""

    runs: list[Run]
    reference: Run
    differences: list[dict[str, dict[str, float | None]]]
    """for each run: finding, and `mean` -> AUROC minus the reference's, with its 95% interval by patient"""
    target: float
    """mean validation AUROC to which the seconds are counted"""

    @property
    def findings(self) -> list[str]:
        """vocabulary of all runs"""
        return self.reference.member.findings


def compare(runs: list[Run], reference: str, target: float, seed: int = 0) -> Comparison:
    """Measures each run's paired difference to the run named `reference`, which differs from itself by exactly 0."""
    base = next(run for run in runs if run.name == reference)
    test, patients = base.member.splits["test"], base.member.patients
    logits = [run.member.splits["test"].logits for run in runs]
    options = {"num_resamples": NUM_RESAMPLES, "seed": seed, "precision": False}
    areas = differences_to(test.labels, test.logits, logits, patients, **options)
    differences = [describe_intervals(base.member.findings, one.auroc) for one in areas]
    return Comparison(runs, base, differences, target)


def table_of(comparison: Comparison) -> pd.DataFrame:
    """A row per run, with all that is known: facts, times, AUROC and difference of every finding with intervals."""
    rows, varied = [], varied_settings(comparison)
    for run, difference in zip(comparison.runs, comparison.differences, strict=True):
        course = run.course
        row = {"run": run.name, **run.facts, **{f"training.{key}": run.training.get(key) for key in varied}}
        row["seconds"] = course and round(course.seconds, 1)
        reached = course.seconds_to(comparison.target) if course else None
        row[f"seconds_to_{comparison.target:g}"] = reached and round(reached, 1)
        for finding in (MEAN, *comparison.findings):
            for name, ends in (("auroc", run.auroc[finding]), ("difference", difference[finding])):
                column = f"{name}_{finding}"
                row |= {column: ends["value"], f"{column}_low": ends["low"], f"{column}_high": ends["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def varied_settings(comparison: Comparison) -> list[str]:
    """Settings of the training that differ between the runs, beside those that have a column of their own."""
    known = [run.training for run in comparison.runs if run.training]
    shown = ("model", "size_px", "weights", "seed", "head_epochs")
    keys = [key for key in (known[0] if known else ()) if key not in shown]
    return [key for key in keys if any(training.get(key) != known[0].get(key) for training in known)]


def over_seeds(comparison: Comparison) -> list[tuple[list[str], list[float]]]:
    """The names of runs that differ in nothing but the seed, two or more, and their mean AUROCs, where defined."""
    groups: dict[str, list[Run]] = {}
    for run in comparison.runs:
        if run.training:
            groups.setdefault(str({**run.training, "seed": None}), []).append(run)
    return [
        ([run.name for run in group], [value for run in group if (value := run.auroc[MEAN]["value"]) is not None])
        for group in groups.values()
        if len(group) > 1
    ]
