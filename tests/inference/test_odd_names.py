"""Findings with names that some program below takes for markup, a formula, a column or a path."""

import csv
import io
import re

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from inference.batch.run import BatchOutcome, show
from inference.batch.scoring import answer_schema
from inference.candidate.report import COMPARED, auroc_table, draw_report
from inference.files.answer_formats import Answered, as_csv, as_table
from inference.files.overlays import write_overlay
from inference.film.answers import Finding, Findings
from inference.model.card_text import to_text
from inference.model.model_files import ModelFiles
from inference.model.served_model import ServedModel
from tests.inference.toy_properties import PROPERTIES

NAMES = ["[bold]x[/y]", "a|b\\c", "$x^{$", "h/i:j", "_Ödem", '<b>&"q"</b>', "f=1, 2; {3}", "..", "\\[red]"]
ENDS = {"value": 0.75, "low": 0.5, "high": 1.0}
AUROC = dict.fromkeys([*NAMES, "mean"], ENDS)
SPEED = {"latency_ms": 1.0}
REPORT = {
    "data": {
        "positives": dict.fromkeys(NAMES, 3),
        "split": "test",
        "source": "NIH [2017] $5$",
        "images": 9,
        "patients": 8,
    },
    "test_auroc": dict.fromkeys(COMPARED, AUROC),
    "localisation": {},
    "speed": {"fp32": SPEED, "int8": SPEED},
    "machine": {"cpu": "a processor", "cores": 2},
}
FOUND = Findings([Finding(name, 0.5, 0.25, True) for name in NAMES], True, 1.0, 9.0, None)


def printed(table) -> str:
    console = Console(width=200, file=io.StringIO(), highlight=False)
    console.print(table)
    return console.file.getvalue()


def first_cells(text: str) -> set[str]:
    return {re.split(r"\s{2,}|\s[│┃]", line.strip("│┃ "))[0].strip() for line in text.splitlines()}


def test_the_table_of_auroc_shows_them_as_they_are():
    text = printed(auroc_table(REPORT))
    assert set(NAMES) <= first_cells(text), text
    assert "NIH [2017] $5$" in text


def test_the_answer_to_one_film_shows_them_as_they_are():
    text = as_table(Answered("film.png", FOUND, None), Console(width=200, highlight=False))
    assert set(NAMES) <= first_cells(text), text
    assert [line[1] for line in csv.reader(io.StringIO(as_csv(Answered("film.png", FOUND, None), "youden")))] == NAMES


def test_the_summary_of_a_batch_shows_them_as_they_are(capsys):
    schema = answer_schema(NAMES)
    row = {name: 0.5 for name in schema.names if name.startswith("probability_")}
    row |= {"called": NAMES, "familiar": True, "unreadable": None}
    rows = pa.Table.from_pylist([row], schema)
    properties = PROPERTIES.__class__(**{**vars(PROPERTIES), "findings": NAMES})
    show(BatchOutcome(rows, 0, 0, 0), ServedModel(ModelFiles("a [b]", 1, None), "int8", properties, None), 1.0)
    text = capsys.readouterr().out
    assert set(NAMES) <= first_cells(text), text
    assert "a [b] version 1" in text


def test_the_model_card_s_rows_keep_their_cells():
    described = {
        "model": {"network": "n", "precision": "INT8", "input": "i", "run_id": "r", "commit": "c", "ancestors": []},
        "data": {
            "title": "t",
            "delta_table_id": "d",
            "split_rule": "s",
            "images": {"test": 1},
            "patients": {"test": 1},
        },
        "gate": {"passed": True, "reasons": [], "few_patients": []},
        "thresholds": {"youden": {}},
        "test_auroc": AUROC,
        "subgroups": None,
        "intended_use": "u",
        "limits": [],
    }
    rows = [line for line in to_text(described).splitlines() if "0.750" in line]
    assert len(rows) == len(NAMES) + 1
    # Cells are split at pipes that no backslash escapes (GitHub Flavored Markdown 0.29, 4.10).
    cells = [re.split(r"(?<!\\)\|", row.strip("|"))[0].strip().replace("\\|", "|") for row in rows]
    assert cells == [*NAMES, "mean"]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}


def test_the_figure_draws_them_as_they_are(tmp_path):
    draw_report(REPORT, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size


@pytest.mark.parametrize("source", ["film.png", "胸" * 60 + ".png"])
def test_each_gets_a_file_name_of_its_own_that_a_disk_takes(source, tmp_path):
    long = ["肺" * 100, "肺" * 99 + "炎", "x" * 100, ";" * 100]
    paths = [write_overlay(b"picture", tmp_path, source, name) for name in [*NAMES, *long]]
    assert len(set(paths)) == len(NAMES) + len(long)
    for path in paths:
        assert path.parent == tmp_path
        assert path.read_bytes() == b"picture"
        # The limit of a name on Linux, macOS and Windows.
        assert len(path.name.encode()) <= 255
        assert np.all([character not in path.name for character in '/\\:*?"<>|'])
