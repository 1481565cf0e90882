"""The labels of PadChest: lists in cells, which of them become findings, and what is unknown."""

import ast
from collections import Counter

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.words import says_no_finding, says_nothing
from etl.sources.published.tables import some

UNCHANGED = "unchanged"
"""the report names no finding again that an earlier one had, so a label that is lacking says nothing"""


def parse_labels(cells: pd.Series, path: UPath) -> pd.Series:
    """Each cell as a tuple of labels, without blanks around them, empty ones and repeats."""
    meanings = {}
    for cell in cells.unique():
        try:
            said = [] if says_nothing(cell) else ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            said = None
        if not isinstance(said, list) or not all(isinstance(label, str) for label in said):
            raise InputError(
                f"{path} line {cells.index[cells == cell][0] + 2}: Labels is {cell:.80}, expected a list such as "
                "['cardiomegaly', 'pleural effusion']: get a fresh copy of the table"
            )
        meanings[cell] = tuple(dict.fromkeys(filter(None, (label.strip() for label in said))))
    return cells.map(meanings)


def choose_findings(labels: pd.Series, settings: Etl, path: UPath) -> tuple[list[str], list[str]]:
    """The labels that become findings, and sentences on those that do not."""
    counts = Counter[str]()
    for said, number in labels.value_counts().items():
        counts.update(dict.fromkeys(said, number))
    del counts[UNCHANGED]
    counts = {name: number for name, number in counts.items() if not says_no_finding(name)}
    ordered = sorted(counts, key=str.casefold)
    if named := settings.columns.findings:
        if unknown := [name for name in named if name not in counts]:
            raise InputError(
                f"etl.columns.findings names {some(unknown)}, which no image of {path.name} has that is not left out; "
                f"it has {some(ordered, 300)}"
            )
        return named, [f"{counted(len(counts) - len(named), 'label is', 'labels are')} not in etl.columns.findings"]
    chosen = [name for name in ordered if counts[name] >= settings.labels.min_images]
    rare = sorted((name for name in ordered if name not in chosen), key=lambda name: -counts[name])
    if not chosen:
        raise InputError(
            f"{path}: no label has {settings.labels.min_images} images, the most frequent one is {rare[0]!r} with "
            f"{counts[rare[0]]}: lower etl.labels.min_images"
            if rare
            else f"{path}: no image has a finding: get a fresh copy of the table"
        )
    if not rare:
        return chosen, []
    images = labels.map(lambda said: not set(rare).isdisjoint(said)).sum()
    return chosen, [
        f"{counted(len(rare), 'label', 'labels')} of fewer than {settings.labels.min_images} images (in "
        f"{counted(images, 'image')}), such as {some(rare, 3)}, {'is' if len(rare) == 1 else 'are'} no finding: lower "
        "etl.labels.min_images, or name findings with --etl.columns.findings"
    ]


def encode(labels: pd.Series, findings: list[str]) -> tuple[list[np.ndarray], list[str]]:
    """float32 arrays of 1, 0 and NaN in the order of the findings, and a sentence on narrower labels.

    Images with the same labels share an array. A finding is unknown where a report has a narrower label instead.
    """
    position = {name: index for index, name in enumerate(findings)}
    broader = {
        name: [finding for finding in findings if name.startswith(f"{finding} ") or name.endswith(f" {finding}")]
        for name in {name for said in labels.unique() for name in said}
    }
    values: dict[tuple[str, ...], np.ndarray] = {}
    numbers = Counter[tuple[str, str]]()
    for said, images in labels.value_counts().items():
        blank = np.nan if not said or UNCHANGED in said else 0
        row = np.full(len(findings), blank, np.float32)
        for name in said:
            for finding in broader[name]:
                if finding not in said and row[position[finding]] == 0:
                    row[position[finding]] = np.nan
                    numbers[name, finding] += images
        row[[position[name] for name in said if name in position]] = 1
        values[said] = row
    notes = []
    if numbers:
        ((narrow, finding), number), *_ = numbers.most_common(1)
        notes.append(
            f"{counted(numbers.total(), 'label is', 'labels are')} unknown, because the report has a narrower one, "
            f"such as {narrow!r} without {finding!r} ({number:,})"
        )
    return [values[said] for said in labels], notes


def contradictions(labels: pd.Series) -> pd.Series:
    """Labels such as `normal beside nodule`; None for the others."""
    strange = {}
    for said in labels.unique():
        healthy = [name for name in said if says_no_finding(name)]
        others = [name for name in said if name not in (*healthy, UNCHANGED)]
        strange[said] = f"{healthy[0]} beside {others[0]}" if healthy and others else None
    return pd.Series([strange[said] for said in labels], labels.index, dtype=object)


def describe_unknown(labels: pd.Series) -> list[str]:
    """Sentences on images of which labels are unknown."""
    nothing, unchanged = (labels.map(len) == 0).sum(), labels.map(lambda said: UNCHANGED in said).sum()
    notes = []
    if nothing:
        have = counted(nothing, "listed image has", "listed images have")
        notes.append(f"{have} no label, so all are unknown")
    if unchanged:
        are = counted(unchanged, "listed image is", "listed images are")
        notes.append(f"{are} called {UNCHANGED!r}: labels that are not named there are unknown")
    return notes
