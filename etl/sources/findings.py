"""Chooses, renames, merges and orders the findings of a manifest, as the setting etl.findings says."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.hints import meant
from conf.words import counted
from etl.contract.terms import meant_by, names_of, parts_of, term_of, unions_with
from etl.contract.vocabulary import check_vocabulary
from etl.sources.manifest import Manifest

BOX = 5
"""numbers of a box, of which the first is the index of its finding"""


@dataclass(frozen=True)
class Choice:
    """One finding of the table."""

    name: str
    parts: tuple[int, ...]
    """indices of the source's findings that are merged into it; only one: the finding is taken as it is"""


def choose_findings(manifest: Manifest, entries: Sequence[str]) -> Manifest:
    """The manifest with the findings of `entries` only, in their order, see read_choices; all of them if it is empty.

    Labels are merged as by merge_labels. A box gets the index of each finding that its own has become part of; a box
    of a finding that is left out is dropped, and a note says how many were.
    """
    if not entries:
        return manifest
    choices = read_choices(entries, manifest.findings)
    images = manifest.images.copy()
    # Files that were left out before their labels were looked up have none.
    labelled = images.findings.map(np.ndim) == 1
    images.loc[labelled, "findings"] = pd.Series(
        _merge_rows(images.findings[labelled], choices), images.index[labelled], dtype=object
    )
    targets = {part: [] for part in range(len(manifest.findings))}
    for index, choice in enumerate(choices):
        for part in choice.parts:
            targets[part].append(index)
    images["boxes"], dropped = move_boxes(images.boxes, targets)
    notes = [*manifest.notes, *_describe(choices, manifest.findings, dropped)]
    return replace(manifest, images=images, findings=[choice.name for choice in choices], notes=notes)


def read_choices(entries: Iterable[str], findings: Sequence[str]) -> list[Choice]:
    """What each entry of etl.findings means, of the source's `findings`.

    An entry is a name of the source or another one of the same term, under which the table will have the finding, or
    NAME=A+B, the merger of such findings under a new name.
    Raises InputError for a name that the source does not have, that may mean several of its findings, or that the table
    would have twice.
    """
    choices = [_read(entry.strip(), findings) for entry in entries]
    check_vocabulary([choice.name for choice in choices], where="in etl.findings")
    seen: dict[frozenset[int], str] = {}
    for choice in choices:
        parts = frozenset(choice.parts)
        if parts in seen:
            names = " + ".join(findings[part] for part in sorted(parts))
            raise InputError(f"etl.findings has {seen[parts]!r} and {choice.name!r}, which are both {names}: keep one")
        seen[parts] = choice.name
    return choices


def merge_labels(labels: np.ndarray) -> np.ndarray:
    """Present if any part is present, absent if all parts are absent, otherwise unknown.

    labels: (images, parts) float32, 1 present, 0 absent, NaN unknown. Returns (images,) of the same kind.
    """
    merged = np.where((labels == 0).all(axis=1), np.float32(0), np.float32(np.nan))
    return np.where((labels == 1).any(axis=1), np.float32(1), merged)


def move_boxes(boxes: pd.Series, targets: dict[int, list[int]]) -> tuple[pd.Series, int]:
    """The boxes with the indices of the findings that theirs have become, each once, and how many boxes were dropped.

    boxes: a list per image, in the contract's format. targets: index of a finding -> its new indices; none: the boxes
    of this finding are dropped.
    """
    dropped = 0
    moved = boxes.copy()
    for image in np.flatnonzero(boxes.map(lambda numbers: np.ndim(numbers) == 1 and len(numbers) > 0)):
        numbers, kept = list(boxes.iloc[image]), {}
        for at in range(0, len(numbers), BOX):
            new = targets[int(numbers[at])]
            dropped += not new
            kept |= {(float(index), *numbers[at + 1 : at + BOX]): None for index in new}
        moved.iloc[image] = [number for box in kept for number in box]
    return moved, dropped


def _merge_rows(rows: pd.Series, choices: list[Choice]) -> list[np.ndarray]:
    if rows.empty:
        return []
    labels = np.stack(rows.to_list())
    return list(np.stack([merge_labels(labels[:, list(choice.parts)]) for choice in choices], axis=1))


def _read(entry: str, findings: Sequence[str]) -> Choice:
    # A finding's own name may contain = and +.
    if "=" not in entry or meant_by(entry, findings):
        return Choice(entry, (_find(entry, findings),))
    name, _, merged = (word.strip() for word in entry.partition("="))
    names = [merged] if meant_by(merged, findings) else [part.strip() for part in merged.split("+")]
    if not name or not all(names):
        raise InputError(f"etl.findings has {entry!r}, expected a name, or NAME=A+B with the names of findings")
    # A finding merged with itself is that finding.
    return Choice(name, tuple(dict.fromkeys(_find(part, findings) for part in names)))


def _find(name: str, findings: Sequence[str]) -> int:
    """The index of the finding that is meant. Raises InputError if there is not exactly one."""
    found = meant_by(name, findings)
    if len(found) == 1:
        return findings.index(found[0])
    if found:
        raise InputError(f"etl.findings has {name!r}, which may be {' or '.join(map(repr, found))}: write one of these")
    parts = [finding for part in parts_of(name) for finding in meant_by(part, findings)]
    unions = [finding for union in unions_with(name) for finding in meant_by(union, findings)]
    if parts:
        hint = f"; its parts are there, so write {name}={'+'.join(parts)}"
    elif unions:
        hint = f"; there is {unions[0]!r}, which does not tell {name} from its other parts"
    else:
        names = [*findings, *(other for finding in findings for other in names_of(term_of(finding)))]
        hint = meant(name, list(dict.fromkeys(names)))
    raise InputError(
        f"etl.findings has {name!r}, which no source has; there are {', '.join(findings)}: choose some of these, or "
        f"merge them as NAME=A+B{hint}"
    )


def _describe(choices: list[Choice], findings: Sequence[str], dropped: int) -> list[str]:
    """Sentences on what was renamed, merged and left out."""
    made = [
        f"{choice.name} = {' + '.join(findings[part] for part in choice.parts)}"
        for choice in choices
        if [choice.name] != [findings[part] for part in choice.parts]
    ]
    used = {part for choice in choices for part in choice.parts}
    left_out = [finding for index, finding in enumerate(findings) if index not in used]
    notes = [f"etl.findings makes {', '.join(made)}"] * bool(made)
    notes += [f"etl.findings leaves out {', '.join(left_out)}"] * bool(left_out)
    said = counted(dropped, "box of these findings is", "boxes of these findings are")
    return notes + [f"{said} left out too"] * bool(dropped)
