"""Evaluation of a finished training: measures validation and test split, with intervals, once the best epoch is known.

Temperatures and thresholds are chosen on the validation split; every figure of the test split is of images that chose
nothing. Only rank 0 imports this module.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from conf.writing import atomic_path, write_json
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from training.measures.calibration import Calibration, bin_reliability, fit_calibration
from training.measures.intervals import Areas, Intervals, bootstrap_areas, bootstrap_means
from training.measures.metrics import top_k_hits
from training.measures.predictions import Predictions
from training.measures.subgroups import subgroup_gaps, subgroup_table
from training.measures.thresholds import measure_thresholds
from training.record.figures import draw_curves, draw_reliability, draw_subgroups

FIGURES = ("val_curves", "test_curves", "val_reliability", "test_reliability", "test_subgroups")
NUM_RESAMPLES = 1000
NUM_BINS = 10
TOP = (1, 5)
MIN_POSITIVES = 10
"""fewest positives of a group that is compared with others"""


@dataclass(frozen=True)
class MeasuredSplit:
    """The measurements of one split."""

    predictions: Predictions
    images: pd.DataFrame
    """patient_id, age_years, sex and view of each image, in the order of the predictions"""
    areas: Areas

    def to_table(self) -> pd.DataFrame:
        """Columns image_id, patient_id, labels and logits, the last two as lists, for other programs and ensembles."""
        table = pd.DataFrame({"image_id": self.predictions.image_ids, "patient_id": self.images["patient_id"]})
        return table.assign(labels=list(self.predictions.labels), logits=list(self.predictions.logits))


def measure(predictions: Predictions, rows: pd.DataFrame, seed: int) -> MeasuredSplit:
    """The AUROC of predictions on a split, with intervals. rows: the split's, as TableVersion.rows gives them."""
    images = rows.set_index("image_id").loc[predictions.image_ids].reset_index()
    patients = images["patient_id"].to_numpy()
    areas = bootstrap_areas(predictions.labels, predictions.logits, patients, num_resamples=NUM_RESAMPLES, seed=seed)
    return MeasuredSplit(predictions, images, areas)


def evaluate(
    workspace: Workspace,
    table: TableVersion,
    val: Predictions,
    test: Predictions,
    pos_weight: np.ndarray,
    seed: int,
    sections: dict | None = None,
    exclusive: bool = False,
) -> dict:
    """Measures both splits and writes predictions.parquet, evaluation.json and its figures; returns the report.

    table: the version that has the images; their patients, ages, sexes and views are read from it.
    pos_weight: (findings,), the weights of the training's loss. sections: further sections of the report.
    exclusive: each image has exactly one of the findings, so top-1 accuracy is measured too, and top-5 accuracy if
    there are more than five findings.
    Thresholds are given in calibrated probabilities, see Calibration, and of findings also in the model's own,
    sigmoid(logit).
    """
    card, measured = table.card, {}
    for name, predictions in (("val", val), ("test", test)):
        measured[name] = measure(predictions, table.rows(name), seed)
    with atomic_path(workspace.predictions) as temporary:
        tables = [split.to_table().assign(split=name) for name, split in measured.items()]
        pd.concat(tables).to_parquet(temporary, index=False)

    findings = card.findings
    calibration = fit_calibration(val.labels, val.logits, pos_weight, exclusive)
    report = {
        "note": RESEARCH_USE,
        "data": card.title,
        "delta_table_id": card.delta_table_id,
        "delta_version": card.delta_version,
        "exclusive": exclusive,
        "logit_shifts": named(findings, calibration.shifts),
        "temperatures": named(findings, calibration.temperatures),
        "thresholds": {
            name: ({} if exclusive else {"probability": named(findings, expit(calibration.thresholds[name]))})
            | {"calibrated_probability": named(findings, calibrated)}
            for name, calibrated in calibration.threshold_probabilities.items()
        },
        "splits": {},
    }
    for name, split in measured.items():
        report["splits"][name] = _describe_split(workspace, card, name, split, calibration)
        if exclusive:
            report["splits"][name]["accuracy"] = _accuracy(split, seed)
    images = measured["test"].images
    groups = subgroup_table(test.labels, test.logits, images, findings, num_resamples=NUM_RESAMPLES, seed=seed)
    draw_subgroups(workspace.figures / "test_subgroups.png", groups, f"Test split, {card.title}")
    report["subgroups"] = records(groups)
    report["gaps"] = records(subgroup_gaps(groups, MIN_POSITIVES))
    report |= sections or {}
    write_json(workspace.evaluation, report)
    return report


def _describe_split(
    workspace: Workspace, card: Card, name: str, split: MeasuredSplit, calibration: Calibration
) -> dict:
    """Draws a split's curves, and its reliability before and after the temperatures; returns its part of the report."""
    findings, labels, logits = card.findings, split.predictions.labels, split.predictions.logits
    plain, scaled = (
        bin_reliability(labels, probabilities, NUM_BINS)
        for probabilities in (expit(calibration.shifted(logits)), calibration.probabilities(logits))
    )
    title, scores = f"{name.capitalize()} split, {card.title}", calibration.scores(logits)
    draw_curves(workspace.figures / f"{name}_curves.png", labels, logits, findings, split.areas, title)
    parts = {"before": plain, "after temperature": scaled}
    draw_reliability(workspace.figures / f"{name}_reliability.png", parts, findings, title)
    return {
        "images": len(labels),
        "patients": int(split.images["patient_id"].nunique()),
        "auroc": describe_intervals(findings, split.areas.auroc),
        "average_precision": describe_intervals(findings, split.areas.average_precision),
        "calibration_error": named(findings, plain.expected_calibration_error),
        "calibration_error_with_temperature": named(findings, scaled.expected_calibration_error),
        "operating_points": {
            kind: {key: named(findings, values) for key, values in vars(points).items()}
            for kind, points in ((k, measure_thresholds(labels, scores, t)) for k, t in calibration.thresholds.items())
        },
    }


def _accuracy(split: MeasuredSplit, seed: int) -> dict[str, dict[str, float | None]]:
    """top_1, and top_5 if there are more than five classes: share of images whose class is among the highest scores."""
    labels, logits = split.predictions.labels, split.predictions.logits
    ranks = [k for k in TOP if k < labels.shape[1]]
    hits = np.column_stack([top_k_hits(labels, logits, k) for k in ranks])
    ends = bootstrap_means(hits, split.images["patient_id"], num_resamples=NUM_RESAMPLES, seed=seed)
    return {
        f"top_{k}": dict(zip(("value", "low", "high"), map(number, measured), strict=True))
        for k, *measured in zip(ranks, *ends, strict=True)
    }


def describe_intervals(findings: list[str], intervals: Intervals) -> dict[str, dict[str, float | None]]:
    """Finding, and `mean` -> value, low and high, ready for JSON, where undefined is None."""
    columns = {"value": intervals.values, "low": intervals.low, "high": intervals.high}
    return {
        name: {key: number(values[index]) for key, values in columns.items()}
        for index, name in enumerate([*findings, "mean"])
    }


def named(findings: list[str], values: np.ndarray) -> dict[str, float | None]:
    """Finding -> number, ready for JSON, where undefined is None."""
    return {name: number(value) for name, value in zip(findings, values, strict=True)}


def number(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return float(f"{value:.9g}") if np.isfinite(value) else None


def records(table: pd.DataFrame) -> list[dict]:
    """The rows as dicts, ready for JSON, where undefined is None."""
    return [
        {key: number(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]
