"""Measures a model on films of another origin; everything is in the model's vocabulary, and by patient."""

import numpy as np

from inference.candidate.measuring.answers import describe_answers
from inference.candidate.measuring.evaluate import NUM_RESAMPLES, Scored
from inference.candidate.measuring.localisation import summarise
from inference.film.answers import OPERATING_POINT, call_findings
from inference.model.own_test import OwnTest
from inference.model.properties import Properties
from training.measures.calibration import bin_reliability
from training.measures.intervals import bootstrap_areas, bootstrap_contrast, bootstrap_means
from training.measures.metrics import has_both_classes
from training.measures.rates import Rates, bootstrap_rates
from training.measures.subgroups import group_images, subgroup_table
from training.record.evaluation import NUM_BINS, describe_intervals, named, number, records

RATES = ("sensitivity", "specificity", "ppv", "npv")


def measure(properties: Properties, scored: Scored, mode: str, own: OwnTest | str, seed: int) -> dict:
    """The measurements, ready for JSON, where undefined numbers are null; all intervals are 95% ones by patient.

    scored: answers of the variant `mode`; the labels of findings that the films' table lacks are unknown. own: the
    model's own test split, or why its answers are not known.
    The areas take every film. The rates are those of the model as it is served: on a film that is unlike the training
    data it calls nothing.
    """
    findings, labels, probabilities = properties.findings, scored.labels, scored.probabilities[mode]
    options = {"num_resamples": NUM_RESAMPLES, "seed": seed}
    areas = bootstrap_areas(labels, probabilities, scored.patients, **options)
    familiar, _ = call_findings(properties, probabilities, scored.distances[mode])
    unfamiliar, *ends = bootstrap_means(~familiar[:, None], scored.patients, **options)
    groups = subgroup_table(labels, probabilities, scored.images, findings, **options)
    known, positive = ~np.isnan(labels), labels == 1
    return {
        "images": len(labels),
        "patients": len(np.unique(scored.patients)),
        "known": dict(zip(findings, known.sum(axis=0).tolist(), strict=True)),
        "positives": dict(zip(findings, positive.sum(axis=0).tolist(), strict=True)),
        "auroc": describe_intervals(findings, areas.auroc),
        "average_precision": describe_intervals(findings, areas.average_precision),
        "own_test": _compare(findings, scored, probabilities, own, options),
        "unfamiliar": dict(
            zip(("value", "low", "high"), map(number, (unfamiliar[0], *(e[0] for e in ends))), strict=True)
        ),
        **measure_calls(properties, scored, mode, seed),
        "misses": _misses(properties, scored, mode, options),
        "subgroups": records(groups),
        "localisation": summarise(scored.overlaps[mode], findings),
    }


def measure_calls(properties: Properties, scored: Scored, mode: str, seed: int) -> dict:
    """Calibration error, the rates at each operating point, and how often answers are wrong or unsure if the model
    answers so: what depends on calibration and thresholds alone."""
    reliability = bin_reliability(scored.labels, scored.probabilities[mode], NUM_BINS)
    options = {"num_resamples": NUM_RESAMPLES, "seed": seed}
    return {
        "calibration_error": named(properties.findings, reliability.expected_calibration_error),
        "operating_points": {
            point: _rates(properties, scored, mode, point, options) for point in properties.thresholds
        },
        **({"unsure": describe_answers(properties, scored, mode, seed)} if properties.unsure else {}),
    }


def _compare(findings: list[str], scored: Scored, probabilities: np.ndarray, own: OwnTest | str, options: dict) -> dict:
    """The model's own test split beside these films, over the findings that both define: AUROC, and its change."""
    if isinstance(own, str):
        return {"missing": own}
    both = has_both_classes(scored.labels) & has_both_classes(own.labels)
    # The means must be over the same findings.
    labels, own_labels = (np.where(both, values, np.nan) for values in (scored.labels, own.labels))
    of_own = bootstrap_areas(own_labels, own.probabilities, own.patients, **options)
    before, after = (own_labels, own.probabilities, own.patients), (labels, probabilities, scored.patients)
    return {
        "images": len(own.labels),
        "patients": len(np.unique(own.patients)),
        "auroc": describe_intervals(findings, of_own.auroc),
        "change": describe_intervals(findings, bootstrap_contrast(before, after, **options).auroc),
    }


def _rates(properties: Properties, scored: Scored, mode: str, point: str, options: dict) -> dict[str, dict]:
    """For each finding, its threshold and its rates there, each with value, low and high; None without a threshold."""
    thresholds = properties.thresholds[point]
    rates = bootstrap_rates(*_called(properties, scored, mode, point), scored.patients, **options)
    return {
        finding: {"threshold": thresholds[place]} | {name: ends_of(rates, name, place) for name in RATES}
        for place, finding in enumerate(properties.findings)
    }


def _called(properties: Properties, scored: Scored, mode: str, point: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels, unknown for findings without a threshold, and calls; both (images, findings)."""
    _, called = call_findings(properties, scored.probabilities[mode], scored.distances[mode], point)
    chosen = [threshold is not None for threshold in properties.thresholds[point]]
    return np.where(chosen, scored.labels, np.nan), called


def ends_of(rates: Rates, name: str, place: int) -> dict[str, float | None]:
    """Value, low and high of one rate of one finding, None if undefined. place: index of the finding."""
    parts = {"value": rates.values, "low": rates.low, "high": rates.high}
    return {key: number(getattr(part, name)[place]) for key, part in parts.items()}


def _misses(properties: Properties, scored: Scored, mode: str, options: dict) -> list[dict]:
    """False-negative rate of each finding by sex, age band and view, at the first operating point: a row per group."""
    known, called = _called(properties, scored, mode, OPERATING_POINT)
    rows = []
    for attribute, groups in group_images(scored.images).items():
        for group in groups.categories:
            inside = np.asarray(groups == group)
            if not inside.any():
                continue
            labels, patients = known[inside], scored.patients[inside]
            # What is called is a miss here, so that the sensitivity is the share of misses.
            rates = bootstrap_rates(labels, ~called[inside], patients, **options)
            for place, finding in enumerate(properties.findings):
                present = labels[:, place] == 1
                if present.any():
                    counts = {"positives": int(present.sum()), "patients": len(np.unique(patients[present]))}
                    row = {"attribute": attribute, "group": group, "finding": finding, **counts}
                    rows.append(row | ends_of(rates, "sensitivity", place))
    return rows
