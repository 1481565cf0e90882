"""Reads predictions that somebody has published, or made with another program, as a run to compare with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from conf.errors import InputError
from conf.words import counted
from etl.contract.terms import meant_by
from etl.contract.vocabulary import spelling
from jobs.studies.runs import Run
from training.measures.intervals import bootstrap_areas
from training.measures.predictions import Predictions
from training.record.evaluation import NUM_RESAMPLES, describe_intervals

IMAGE_COLUMNS = ("imageid", "image", "imageindex", "path", "filename", "file")
"""names of the column with the films, without spaces, case and underscores"""
PREFIXES = ("prob_", "pred_", "score_")
"""what files write before a finding's name"""


def read_predictions(path: Path, name: str, of: Run, seed: int = 0) -> Run:
    """Reads a CSV with a row per film and a column per finding as a run on the test films of another run.

    A column with the films' names is called as in IMAGE_COLUMNS; a finding's column has its name or a synonym
    (docs/data.md), perhaps after one of PREFIXES. The numbers may be probabilities or any scores, higher for more
    likely. Rows of other films are left out. AUROCs get intervals by patient, as for trainings; what only a training
    has, such as seconds, is None.

    Raises InputError if the file cannot be read, names no films, lacks a finding or a film of the test split, names one
    twice, or has a cell that is no finite number.
    """
    table = _read(path)
    test, findings = of.member.splits["test"], of.member.findings
    image = _image_column(path, table)
    twice = table[image][table[image].duplicated()]
    if len(twice):
        raise InputError(f"{path} has a second row for film {twice.iloc[0]}, expected one row per film")
    rows = table.set_index(image).reindex(test.image_ids)
    absent = ~np.isin(test.image_ids, table[image])
    if absent.any():
        raise InputError(
            f"{path} lacks {counted(int(absent.sum()), 'film')} of the {len(absent)} in the test split of {of.name}, "
            f"such as {test.image_ids[absent][0]}: AUROCs of other films cannot be compared; train on the split of "
            "these predictions (etl.split lists)"
        )
    columns = [_column_of(path, finding, rows, findings) for finding in findings]
    scores = rows[columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    wrong = np.argwhere(~np.isfinite(scores) & ~np.isnan(test.labels))
    if len(wrong):
        row, column = wrong[0]
        raise InputError(
            f"{path} has {rows[columns].iloc[row, column]!r} for film {test.image_ids[row]}, column {columns[column]}, "
            "expected a number"
        )
    areas = bootstrap_areas(test.labels, scores, of.member.patients, num_resamples=NUM_RESAMPLES, seed=seed)
    member = replace(
        of.member,
        test_auroc=describe_intervals(findings, areas.auroc),
        splits={"test": Predictions(test.image_ids, test.labels, scores)},
    )
    shared = ("table", "delta_version", "test_images", "test_patients")
    facts = {key: value if key in shared else None for key, value in of.facts.items()}
    return Run(name, "", member, facts | {"network": "predictions"}, None)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(
            f"{path} cannot be read ({' '.join(str(error).split())}), expected predictions as CSV in UTF-8, with "
            "a row per film and a column per finding; trainings are given as their workspaces"
        ) from error


def _image_column(path: Path, table: pd.DataFrame) -> str:
    plain = {column: "".join(letter for letter in column.lower() if letter.isalnum()) for column in table.columns}
    found = [column for wanted in IMAGE_COLUMNS for column, name in plain.items() if name == wanted]
    if not found:
        raise InputError(
            f"{path} has the columns {', '.join(table.columns)}, expected one with the films' names, called image"
        )
    return found[0]


def _column_of(path: Path, finding: str, rows: pd.DataFrame, findings: list[str]) -> str:
    """The column with the scores of a finding; one that is called as several findings could be is nobody's."""
    found = []
    for column in rows.columns:
        bare = next((column[len(start) :] for start in PREFIXES if column.lower().startswith(start)), column)
        if meant_by(bare, findings) == [finding]:
            found.append((spelling(bare) != spelling(finding), column))
    # A column of this very name comes before one of a synonym.
    best = [column for is_synonym, column in found if is_synonym == min(found)[0]]
    if len(best) != 1:
        columns = ", ".join(best) or "none"
        raise InputError(f"{path}: columns with the scores of {finding}: {columns}, expected one")
    return best[0]
