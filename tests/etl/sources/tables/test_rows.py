"""Rows of comma-separated tables: what a program writes is read back, or refused with its line."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from conf.errors import InputError
from etl.sources.tables.rows import read_rows

NAMES = st.text("ab1_-", min_size=1, max_size=5).map("{}.png".format)
TEXTS = st.text(st.sampled_from('ab1 ,;"\n.'), max_size=30)


def written(header: list[str], rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


@given(st.lists(st.tuples(NAMES, st.sampled_from(["0", "1", ""]), TEXTS), min_size=1, max_size=6))
def test_what_a_program_writes_is_read_back(rows):
    rows = [list(row) for row in rows]
    text = written(["image", "Mass", "report"], rows)
    read = read_rows(UPath("labels.csv"), text, {"image", "Mass"})
    assert read.rows == rows
    assert read.lines == sorted(set(read.lines)) and read.lines[-1] == text.count("\n")


@given(st.lists(st.tuples(NAMES, st.sampled_from(["0", "1"])), min_size=3, max_size=8), st.data())
def test_a_stray_quote_takes_no_row_with_it(rows, data):
    lines = [f"{name},{mass},ok" for name, mass in rows]
    first = data.draw(st.integers(0, len(lines) - 2))
    last = data.draw(st.integers(first + 1, len(lines) - 1))
    lines[first] = lines[first].replace(",ok", ',"ok')
    lines[last] = lines[last].replace(",ok", ',ok"')
    with pytest.raises(InputError, match=rf"line {first + 2}: a quote opens .*'report' that ends in line {last + 2}"):
        read_rows(UPath("labels.csv"), "\n".join(["image,Mass,report", *lines]), {"image", "Mass"})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_with_any_end_of_line(end):
    text = end.join(["", "image,report", 'a.png,"x', 'y"', "   ", "b.png,z", ""])
    read = read_rows(UPath("labels.csv"), text, {"image"})
    assert read.lines == [4, 6] and [row[0] for row in read.rows] == ["a.png", "b.png"]
    assert re.sub(r"\s", "", read.rows[0][1]) == "xy"


@given(st.lists(st.tuples(NAMES, st.sampled_from(["0", "1", ""]), TEXTS), min_size=1, max_size=6))
def test_cells_of_columns_that_are_not_kept_become_empty(rows):
    text = written(["image", "Mass", "report"], [list(row) for row in rows])
    read = read_rows(UPath("labels.csv"), text, {"image"}, {"image", "Mass"})
    assert read.rows == [[image, mass, ""] for image, mass, _ in rows]
    assert read.lines == read_rows(UPath("labels.csv"), text, {"image"}).lines
