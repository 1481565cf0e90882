"""The model against two reference standards of the same films, such as labels mined from reports and radiologists'."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.words import counted
from conf.workspace import Workspace
from etl.contract.agreement import agreement
from etl.contract.schema import SPLITS
from etl.contract.version import TableVersion
from inference.candidate.measuring.evaluate import NUM_RESAMPLES, Scored
from inference.external.films import columns_for
from inference.external.measure import ends_of
from inference.external.seen import hashes_of
from inference.film.answers import OPERATING_POINT, call_findings
from inference.model.properties import Properties
from training.measures.cells import markdown_table, value_cell, with_interval
from training.measures.intervals import bootstrap_relabelled
from training.measures.rates import bootstrap_rates
from training.record.evaluation import describe_intervals, number

RATES, STANDARDS = ("sensitivity", "specificity"), ("first", "second")
SECOND_HEADS = ("films", "positive 1 / 2", "kappa", "AUROC 1 / 2", "change")


@dataclass(frozen=True)
class Standard:
    """Other labels of the tested films."""

    title: str
    """the table that they are from"""
    labels: dict[str, np.ndarray]
    """image -> (findings,) float32 in the model's vocabulary: 1, 0, NaN unknown"""
    left_out: list[str]
    """findings of that table that the model does not have"""


def read_standard(folder: str, films: TableVersion, rows: pd.DataFrame, findings: list[str]) -> Standard:
    """Reads the labels of the same films in another table. A film is the same if its stored pixels are.

    folder: a workspace with that table. films, rows: the table of the films that are tested, and its rows. findings:
    the model's. Raises InputError if there is no such table, if it has none of the films, none of the findings, or two
    different labels of one film.
    """
    table = TableVersion.of(Workspace.at(folder, setting="validation.second"))
    if table.card.delta_table_id == films.card.delta_table_id:
        raise InputError(f"validation.second {folder} is the tested table itself: give one with other labels")
    if not set(table.card.sizes_px) & set(films.card.sizes_px):
        raise InputError(
            f"validation.second {folder} has squares of {table.card.sizes_px} px, the tested films of "
            f"{films.card.sizes_px} px, so nobody can tell which films are the same: run its ETL with one of these"
        )
    columns = columns_for(findings, table.card)
    others = table.rows(*[split for split in SPLITS if table.card.images[split]])
    keys = hashes_of(films, table.card, rows)
    tested = dict(zip(keys, rows.image_id, strict=True))
    known: dict[str, tuple[str, np.ndarray]] = {}
    for image_id, key, cells in zip(
        others.image_id, hashes_of(table, films.card, others), others.findings, strict=True
    ):
        if key not in tested:
            continue
        cells = np.array([np.nan if place is None else cells[place] for place in columns], np.float32)
        twin, before = known.setdefault(key, (image_id, cells))
        if not np.array_equal(before, cells, equal_nan=True):
            raise InputError(
                f"{folder} has {twin} and {image_id}, two films with the pixels of {tested[key]} and different labels: "
                "leave one of them out (etl.exclude)"
            )
    labels = {image_id: known[key][1] for image_id, key in zip(rows.image_id, keys, strict=True) if key in known}
    if not labels:
        raise InputError(
            f"validation.second {folder} has none of the tested films: give a table of the same films, which the ETL "
            "made with the same etl.sizes_px, etl.square and etl.intensity"
        )
    left = [name for place, name in enumerate(table.card.findings) if place not in columns]
    return Standard(table.card.title, labels, left)


def measure_standards(properties: Properties, scored: Scored, mode: str, standard: Standard, seed: int) -> dict:
    """The model by both sets of labels on the films that both know, ready for JSON; all intervals are by patient.

    `change` is the AUROC by the second set of labels minus that by the first, paired.
    """
    findings, patients = properties.findings, scored.patients
    unknown = np.full(len(findings), np.nan, np.float32)
    second = np.stack([standard.labels.get(image_id, unknown) for image_id in scored.images.image_id])
    both = ~(np.isnan(scored.labels) | np.isnan(second))
    first, second = (np.where(both, labels, np.nan) for labels in (scored.labels, second))
    options = {"num_resamples": NUM_RESAMPLES, "seed": seed}
    probabilities = scored.probabilities[mode]
    _, called = call_findings(properties, probabilities, scored.distances[mode])
    by_first, by_second, change = (
        describe_intervals(findings, areas.auroc)
        for areas in bootstrap_relabelled(first, second, probabilities, patients, **options)
    )
    # The first set's positives are taken for calls, and the second set for the truth.
    of_labels = bootstrap_rates(second, first == 1, patients, **options)
    chosen = [threshold is not None for threshold in properties.thresholds[OPERATING_POINT]]
    rates = [
        bootstrap_rates(np.where(chosen, labels, np.nan), called, patients, **options) for labels in (first, second)
    ]
    agreed = agreement(first, second)
    return {
        "title": standard.title,
        "left_out": standard.left_out,
        "films": int(both.any(axis=1).sum()),
        "patients": len(np.unique(patients[both.any(axis=1)])),
        "auroc_first": by_first,
        "auroc_second": by_second,
        "change": change,
        "findings": {
            finding: {
                "films": one.films,
                "positives_first": one.first,
                "positives_second": one.second,
                "kappa": number(one.kappa),
                "labels_ppv": ends_of(of_labels, "ppv", place),
                "labels_sensitivity": ends_of(of_labels, "sensitivity", place),
                **{
                    f"{name}_{which}": ends_of(measured, name, place)
                    for which, measured in zip(STANDARDS, rates, strict=True)
                    for name in RATES
                },
            }
            for place, (finding, one) in enumerate(zip(findings, agreed, strict=True))
            if one.films
        },
    }


def second_cells(report: dict, finding: str) -> list[str]:
    """The cells of SECOND_HEADS for one finding, or for `mean`."""
    second = report["second"]
    measured = second["findings"].get(finding)
    counts = ["", "", ""]
    if measured:
        positives = (f"{measured[f'positives_{which}']:,}" for which in STANDARDS)
        counts = [f"{measured['films']:,}", " / ".join(positives), value_cell(measured["kappa"], ".2f")]
    areas = " / ".join(value_cell(second[f"auroc_{which}"][finding]["value"], ".2f") for which in STANDARDS)
    return [*counts, areas, with_interval(second["change"][finding], "+.2f")]


def second_lines(report: dict) -> list[str]:
    """The page's section on a second reference standard; empty if there is none."""
    second = report.get("second")
    if not second:
        return []
    findings = second["findings"]
    size = f"{counted(second['films'], 'film')} of {counted(second['patients'], 'patient')}"
    rates = [
        [
            name,
            value_cell(findings[name]["labels_ppv"]["value"], ".2f"),
            *(with_interval(findings[name][f"{rate}_{which}"], ".2f") for rate in RATES for which in STANDARDS),
        ]
        for name in findings
    ]
    return [
        "## By two reference standards",
        "",
        f"1: the labels of the tested films; 2: those of {second['title']}. Each finding is measured on the films "
        f"whose label both know, {size} in all. `change` is the AUROC by the second labels minus that by the first, "
        "paired; the mean is over the findings that both define. `PPV`: the share of the first labels' positives that "
        f"the second confirm. Only the second table has: {', '.join(second['left_out']) or 'nothing else'}.",
        "",
        *markdown_table(
            ["finding", *SECOND_HEADS], [[name, *second_cells(report, name)] for name in (*findings, "mean")]
        ),
        "",
        *markdown_table(["finding", "PPV", *(f"{rate} {which}" for rate in RATES for which in (1, 2))], rates),
        "",
    ]
