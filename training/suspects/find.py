"""The suspects among a table's labels, and the estimated rates, per finding."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.settings import LabelQuality
from training.measures.label_noise import LIMITS, RATES, LabelNoise, measure_noise
from training.measures.metrics import auroc_per_finding
from training.suspects.predicted import Predicted

NUM_RESAMPLES = 1000
COLUMNS = ["finding", "rank", "image_id", "patient_id", "split", "label", "probability"]


@dataclass(frozen=True)
class Found:
    """What was found."""

    suspects: pd.DataFrame
    """COLUMNS and `place`, the row of Predicted: per finding, the least likely label first; rank from 1"""
    findings: dict[str, dict]
    """judged finding -> numbers of known, present and absent labels, their patients, suspects, AUROC, and each of RATES
    and LIMITS as value, low and high, ready for JSON"""
    left_out: dict[str, str]
    """finding that is not judged -> why"""


def find_suspects(predicted: Predicted, settings: LabelQuality, seed: int) -> Found:
    """Judges each finding with enough labels. Raises InputError if no finding has."""
    aurocs = auroc_per_finding(predicted.labels, predicted.probabilities)
    patients = predicted.rows["patient_id"].to_numpy()
    tables, findings, left_out = [], {}, {}
    for column, finding in enumerate(predicted.findings):
        labels = predicted.labels[:, column]
        known = np.flatnonzero(~np.isnan(labels))
        present = labels[known] == 1
        if why := too_few(present, settings.min_labels):
            left_out[finding] = why
            continue
        chances = predicted.probabilities[known, column]
        noise = measure_noise(present, chances, patients[known], num_resamples=NUM_RESAMPLES, seed=seed)
        tables.append(_table_of(finding, known[noise.suspects], predicted, column))
        wrong = present[noise.suspects]
        findings[finding] = {
            "known": len(known),
            "present": int(present.sum()),
            "absent": int((~present).sum()),
            "patients": len(np.unique(patients[known])),
            "auroc": float(aurocs[column]),
            "suspects_present": int(wrong.sum()),
            "suspects_absent": int((~wrong).sum()),
            **_rates_of(noise),
        }
    if not findings:
        raise InputError(
            "no finding has enough labels to judge: "
            + "; ".join(f"{finding}: {why}" for finding, why in left_out.items())
            + ". Name trainings that predict more images by --label_quality.trainings, lower "
            "--label_quality.min_labels, or check what the source's labels say"
        )
    return Found(pd.concat(tables, ignore_index=True), findings, left_out)


def too_few(present: np.ndarray, min_labels: int) -> str:
    """Why a finding with these known labels is not judged; empty if it is. present: (images,) bool."""
    if not len(present):
        return "no label is known"
    numbers = {"present": int(present.sum()), "absent": int((~present).sum())}
    for word, number in numbers.items():
        if number == len(present):
            return f"all {number:,} known labels are {word}"
    word = min(numbers, key=numbers.get)
    if numbers[word] >= min_labels:
        return ""
    return f"only {numbers[word]:,} labels are {word}, fewer than label_quality.min_labels ({min_labels})"


def _table_of(finding: str, places: np.ndarray, predicted: Predicted, column: int) -> pd.DataFrame:
    rows = predicted.rows.iloc[places]
    return pd.DataFrame(
        {
            "finding": finding,
            "rank": np.arange(1, len(places) + 1),
            "image_id": rows["image_id"].to_numpy(),
            "patient_id": rows["patient_id"].to_numpy(),
            "split": rows["split"].to_numpy(),
            "label": predicted.labels[places, column].astype(int),
            "probability": predicted.probabilities[places, column].round(6),
            "place": places,
        }
    )


def _rates_of(noise: LabelNoise) -> dict[str, dict[str, float | None]]:
    columns = {"value": noise.values, "low": noise.low, "high": noise.high}
    return {
        rate: {key: None if np.isnan(values[place]) else float(values[place]) for key, values in columns.items()}
        for place, rate in enumerate(RATES + LIMITS)
    }
