"""The findings of several sources as one vocabulary, and what a source's labels say about the others' findings."""

from collections.abc import Mapping, Sequence

import numpy as np

from conf.errors import InputError
from etl.contract.terms import meaning, parts_of, term_of


def join_vocabularies(vocabularies: Mapping[str, Sequence[str]]) -> tuple[list[str], dict[str, list[int]]]:
    """All findings of several sources, each once, and where each source's own findings are among them.

    vocabularies: name of the source -> its findings. Names of one term, or of one spelling where the term is not known,
    are one finding, which is called by the term. A union, such as Nodule/Mass, is a finding beside its parts.
    Raises InputError if two findings of one source mean the same.
    """
    joint: dict[str, str] = {}
    places: dict[str, list[int]] = {}
    for source, findings in vocabularies.items():
        meanings = [meaning(finding) for finding in findings]
        for finding, meant in zip(findings, meanings, strict=True):
            if meanings.count(meant) > 1:
                names = [one for one, other in zip(findings, meanings, strict=True) if other == meant]
                raise InputError(
                    f"the findings {' and '.join(map(repr, names))} of the source {source} mean the same: choose one, "
                    "or merge them, with etl.findings in its scenario file"
                )
            joint.setdefault(meant, term_of(finding) or finding)
        places[source] = [list(joint).index(meant) for meant in meanings]
    return list(joint.values()), places


def spread(labels: np.ndarray, places: Sequence[int], width: int) -> np.ndarray:
    """(images, width) float32: a source's labels at its places in the joint vocabulary, NaN (unknown) elsewhere."""
    wide = np.full((len(labels), width), np.nan, np.float32)
    wide[:, list(places)] = labels
    return wide


def infer_labels(labels: np.ndarray, findings: Sequence[str]) -> dict[str, int]:
    """Fills in what follows from the meaning of unions, in place; returns finding -> number of labels filled in.

    A part is absent where its union is. A union is present where a part is, and absent where all its parts are.
    labels: (images, findings) float32, 1 present, 0 absent, NaN unknown; only unknown labels are filled in.
    """
    filled: dict[str, int] = {}

    def fill(index: int, where: np.ndarray, value: float) -> None:
        where = where & np.isnan(labels[:, index])
        labels[where, index] = value
        if where.any():
            filled[findings[index]] = filled.get(findings[index], 0) + int(where.sum())

    at = {term: index for index, finding in enumerate(findings) if (term := term_of(finding))}
    for union in [finding for finding in findings if parts_of(finding)]:
        index, terms = findings.index(union), parts_of(union)
        parts = [at[part] for part in terms if part in at]
        for part in parts:
            fill(part, labels[:, index] == 0, 0)
        fill(index, (labels[:, parts] == 1).any(axis=1), 1)
        if len(parts) == len(terms):
            fill(index, (labels[:, parts] == 0).all(axis=1), 0)
    return filled
