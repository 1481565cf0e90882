"""The answers of a model that may answer unsure, as text."""

import csv
import io

import numpy as np
from rich.console import Console

from inference.files.answer_formats import ANSWER_COLUMNS, CSV_COLUMNS, Answered, as_csv, as_line, as_table
from inference.files.overlays import worth_painting
from inference.film.answers import describe_findings
from tests.inference.film.test_answers import PROBABILITIES, UNSURE
from tests.inference.toy_properties import PROPERTIES

CONSOLE = Console(width=120)
FOUND = describe_findings(UNSURE, PROBABILITIES, 9.0)
ANSWERED = Answered("film.png", FOUND, None)


def test_the_table_and_the_line_say_the_answers_instead_of_the_calls():
    rows = [line.split() for line in as_table(ANSWERED, CONSOLE).splitlines()[2:]]
    assert rows == [
        ["Hernia", "0.900", "-", "present"],
        ["Mass", "0.300", "0.300", "unsure"],
        ["Nodule", "0.500", "0.600", "absent"],
    ]
    assert as_line(ANSWERED, 8, CONSOLE) == "film.png  Hernia 0.90  unsure: Mass 0.30\n"
    nothing = describe_findings(UNSURE, np.array([0.1, 0.1, 0.1], np.float32), 9.0)
    assert as_line(Answered("film.png", nothing, None), 8, CONSOLE) == "film.png  -  unsure: Hernia 0.10\n"


def test_the_csv_has_more_columns_only_for_such_a_model():
    columns = [*CSV_COLUMNS, *ANSWER_COLUMNS]
    lines = list(csv.DictReader(io.StringIO(as_csv(ANSWERED, "youden", unsure=True)), fieldnames=columns))
    assert [[line[name] for name in ANSWER_COLUMNS] for line in lines] == [
        ["unsure", "0.3", "0.6", "0.1"],
        ["absent", "0.55", "0.7", "0.1"],
        ["present", "", "0.8", "0.1"],
    ]
    failed = as_csv(Answered("film.png", None, "truncated"), "youden", unsure=True)
    assert len(next(csv.reader([failed]))) == len(columns)
    plain = as_csv(Answered("film.png", describe_findings(PROPERTIES, PROBABILITIES, 9.0), None), "youden")
    assert {len(row) for row in csv.reader(io.StringIO(plain))} == {len(CSV_COLUMNS)}


def test_the_findings_that_are_present_are_painted():
    assert worth_painting(FOUND) == [2]
