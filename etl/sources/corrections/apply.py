"""Applies corrected labels to a manifest, and says how many there were and whose."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.contract.storage import locate
from etl.sources.corrections.rows import Correction, read_corrections, same, word
from etl.sources.findings import move_boxes
from etl.sources.manifest import Manifest, sha256_of

Said = dict[tuple[str, int], tuple[float, str]]
"""image and finding -> the label that an earlier file gave, and the file's name"""
IDLE = {
    "already": "already so",
    "not_there": "of images that are absent or left out",
    "open": "not judged yet",
}
"""rows of a file that change nothing, by their key in Card.corrections"""


@dataclass
class Tally:
    """What the rows of a file did."""

    changed: Counter = field(default_factory=Counter)
    """finding and such as `absent to present` -> labels"""
    lost: dict[int, set[int]] = field(default_factory=dict)
    """index of an image -> findings that are no longer present"""
    confirmed: int = 0
    already: int = 0
    not_there: int = 0
    excluded: dict[int, str] = field(default_factory=dict)
    """index of an image -> the reason for which it is left out"""
    who: Counter = field(default_factory=Counter)
    why: Counter = field(default_factory=Counter)


def correct(manifest: Manifest, settings: Etl) -> Manifest:
    """The manifest with the corrections of each file of settings.corrections, one file after the other.

    Its notes say how many there were and whose; its `corrections` say more, for the card. Boxes of a finding that is no
    longer present are dropped. Raises InputError for a file that is not such a table, an image or a finding that the
    source does not have, a label that is none, a row without who or why, a label that is no longer what it `was`, and
    two rows that contradict each other.
    """
    said: Said = {}
    for name in settings.corrections:
        manifest = _apply(manifest, locate(name), settings, said)
    return manifest


def _apply(manifest: Manifest, path: UPath, settings: Etl, said: Said) -> Manifest:
    """The manifest with the corrections of one file. said: what earlier files made of a label; gets those of this."""
    rows, waiting = read_corrections(path, manifest, settings.uncertain)
    images = manifest.images.copy()
    place_of = dict(zip(images.image_id, images.index, strict=True))
    labels, tally = images.findings.to_dict(), Tally()
    for row in rows:
        _judge(row, place_of.get(row.image), labels, manifest.findings, path, said, tally)
    images["findings"] = pd.Series(labels, dtype=object)
    if settings.format == "classes" and not settings.sources:
        _check_classes(path, images)
    images["boxes"], dropped = _drop_boxes(images.boxes, tally.lost, len(manifest.findings))
    for place, reason in tally.excluded.items():
        if pd.isna(images.at[place, "reason"]):
            images.at[place, "reason"] = reason
    # Without its folder, because the card of a model names it.
    taken = manifest.corrections.keys() | manifest.sha256.keys()
    name = next(name for name in _numbered(path.name) if name not in taken)
    described = _describe(tally, manifest.findings, sha256=sha256_of(path), open=waiting, boxes_dropped=dropped)
    return replace(
        manifest,
        images=images,
        sha256=manifest.sha256 | {name: described["sha256"]},
        corrections=manifest.corrections | {name: described},
        notes=[*manifest.notes, *sentences_on(name, described)],
    )


def _numbered(name: str) -> Iterator[str]:
    """`a.csv`, `a.csv (2)`, `a.csv (3)` and so on."""
    yield name
    yield from (f"{name} ({number})" for number in count(2))


def _judge(
    row: Correction,
    place: int | None,
    labels: dict[int, np.ndarray],
    findings: list[str],
    path: UPath,
    said: Said,
    tally: Tally,
) -> None:
    """Applies one row to `labels` and counts it. place: index of its image; None if that has no file."""
    # Files that were left out before their labels were looked up have none.
    if place is None or np.ndim(labels[place]) != 1:
        tally.not_there += 1
        return
    tally.who[row.who] += 1
    tally.why[row.why] += 1
    if row.finding is None:
        tally.excluded[place] = f"left out by {path.name}: {row.why} ({row.who})"
        return
    now, finding, key = float(labels[place][row.finding]), findings[row.finding], (row.image, row.finding)
    _check_was(path, row, now, finding, said.get(key))
    said[key] = row.label, path.name
    if not same(now, row.label):
        tally.changed[finding, f"{word(now)} to {word(row.label)}"] += 1
        labels[place] = np.array(labels[place], np.float32)
        labels[place][row.finding] = row.label
        if row.label != 1:
            tally.lost.setdefault(place, set()).add(row.finding)
    elif row.was is None or same(row.was, now):
        tally.confirmed += 1
    else:
        tally.already += 1


def _describe(tally: Tally, findings: list[str], **facts: object) -> dict:
    """An entry of Card.corrections."""
    changed = {}
    for (finding, how), number in sorted(tally.changed.items(), key=lambda item: findings.index(item[0][0])):
        changed.setdefault(finding, {})[how] = number
    numbers = {"confirmed": tally.confirmed, "already": tally.already, "not_there": tally.not_there}
    people = {"who": dict(tally.who.most_common()), "why": dict(tally.why.most_common())}
    return {**facts, "changed": changed, **numbers, "excluded": len(tally.excluded), **people}


def sentences_on(name: str, corrections: dict) -> list[str]:
    """A sentence on a file of corrections, and one on its rows that change nothing.

    corrections: its entry of Card.corrections.
    """
    number = sum(sum(changes.values()) for changes in corrections["changed"].values())
    parts = [counted(number, "label corrected", "labels corrected")]
    if corrections["confirmed"]:
        parts.append(f"{corrections['confirmed']:,} confirmed")
    if corrections["excluded"]:
        parts.append(counted(corrections["excluded"], "image excluded", "images excluded"))
    if corrections["boxes_dropped"]:
        parts.append(counted(corrections["boxes_dropped"], "box dropped", "boxes dropped"))
    by = ", ".join(f"{person} ({counted(rows, 'row')})" for person, rows in corrections["who"].items())
    idle = [f"{corrections[key]:,} {words}" for key, words in IDLE.items() if corrections[key]]
    notes = [f"{name}: {', '.join(parts)}" + f", by {by}" * bool(by)]
    return notes + [f"{name}: rows that change nothing: {', '.join(idle)}"] * bool(idle)


def _check_was(path: UPath, row: Correction, now: float, finding: str, earlier: tuple[float, str] | None) -> None:
    """Raises InputError if the label is no longer what was judged, or if an earlier file judged otherwise."""
    where = f"{path} line {row.line}: {finding} of {row.image}"
    if row.was is not None and not same(row.was, now) and not same(row.label, now):
        by = f" by {earlier[1]}" if earlier else " in the source"
        raise InputError(
            f"{where} was {word(row.was)} when it was judged, and is {word(now)} now{by}: judge it again and write "
            "what it is now into the column was, remove the row, or give the files of etl.corrections that came before"
        )
    if row.was is None and earlier and not same(earlier[0], row.label):
        raise InputError(
            f"{where} is {word(earlier[0])} by {earlier[1]} and {word(row.label)} by this file: keep one of these "
            "rows, or write what it was before this judgement into the column was"
        )


def _check_classes(path: UPath, images: pd.DataFrame) -> None:
    """Raises InputError for an image with no class, or with several."""
    for image, labels in zip(images.image_id, images.findings, strict=True):
        if np.ndim(labels) == 1 and np.nansum(labels) != 1:
            raise InputError(
                f"{path}: {image} has {counted(int(np.nansum(labels)), 'class', 'classes')} after the corrections, "
                "expected one: write a row for the class that it loses (0) and one for the class that it gets (1)"
            )


def _drop_boxes(boxes: pd.Series, lost: dict[int, set[int]], num_findings: int) -> tuple[pd.Series, int]:
    """The boxes without those of findings that their images have lost, and how many were dropped."""
    boxes, dropped = boxes.copy(), 0
    for place, findings in lost.items():
        targets = {index: [] if index in findings else [index] for index in range(num_findings)}
        moved, gone = move_boxes(boxes.loc[[place]], targets)
        boxes[place], dropped = moved[place], dropped + gone
    return boxes, dropped
