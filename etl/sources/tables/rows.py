"""The rows of a comma-separated table, each with its line, and what is wrong with how they are written."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from upath import UPath

from conf.errors import InputError

NUMBERS = re.compile(r"-?\d*(\.\d*)?|nan", re.IGNORECASE)
ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,6}$")
MAX_LINES_ABOVE = 20
"""lines above the header in which it is looked for"""


@dataclass(frozen=True)
class Written:
    """The rows of a table as they are written, without blank lines."""

    header: list[str]
    """stripped names; empty for a column without a name"""
    rows: list[list[str]]
    """cells, as many as the header has"""
    lines: list[int]
    """the line in which each row ends, from 1"""


def read_rows(path: UPath, text: str, needed: set[str], kept: Collection[str] | None = None) -> Written:
    """The rows of a table that has the `needed` columns.

    Their cells are one line; those of other columns, such as reports, may have several. path: where the text is from,
    for messages. kept: the columns whose cells are kept, with the needed ones among them; the cells of all others
    become empty, which saves most of the memory that a wide table takes. None: all. Raises InputError, with the line,
    for a column that is lacking or named twice, a row with more or fewer cells than the header, and a stray quote,
    which makes one cell of all that lies before the next quote, rows included.
    """
    written = list(_drop_cells(_split(path, text), kept))
    if not written:
        raise InputError(f"{path} is empty, expected a table with a header: get a fresh copy")
    header = [name.strip() for name in written[0][1]]
    _check_header(path, header, written, needed)
    # Commas at the end of the header name no columns.
    width = max((index for index, name in enumerate(header, start=1) if name), default=0)
    rows, lines = [row for _, row in written[1:]], [line for line, _ in written[1:]]
    several = [at for at, row in enumerate(rows) if "\n" in "".join(row)]
    looks = _looks(header, rows, needed) if several else {}
    for at in several:
        _check_quotes(path, lines[at], header, rows[at], needed, looks)
        if kept is not None:
            rows[at] = [
                cell if place >= len(header) or header[place] in kept else "" for place, cell in enumerate(rows[at])
            ]
    for at, row in enumerate(rows):
        if len(row) == len(header):
            continue
        if len(row) < width:
            raise InputError(
                f"{path} line {lines[at]}: {len(row)} cells, expected {width} as in the header: the file is "
                "truncated or the row is broken; get a fresh copy or fix the row"
            )
        if any(cell.strip() for cell in row[len(header) :]):
            raise InputError(
                f"{path} line {lines[at]}: {len(row)} cells, expected {width} as in the header: {_too_many(row)}"
            )
        rows[at] = (row + [""] * len(header))[: len(header)]
    return Written(header, rows, lines)


def _split(path: UPath, text: str) -> Iterator[tuple[int, list[str]]]:
    """The line in which it ends, and the cells, of each row that is not blank."""
    rows, start = csv.reader(_lines(text)), 1
    advice = "remove the stray quote, or double it; if the file ends there, get a fresh copy"
    try:
        for row in rows:
            if len(row) > 1 or "".join(row).strip():
                yield rows.line_num, row
            last, start = start, rows.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path} line {start}: a quote opens a cell that is too long ({error}): {advice}") from error
    if start > 1 and (rest := list(islice(_lines(text), last - 1, None))):
        try:
            list(csv.reader(rest, strict=True))
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise InputError(
                    f"{path} line {last}: a quote opens a cell that no other one closes: {advice}"
                ) from error


def _lines(text: str) -> Iterable[str]:
    """The lines of a text. A StringIO would take four bytes for each character."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


def _drop_cells(rows: Iterator[tuple[int, list[str]]], kept: Collection[str] | None) -> Iterator[tuple[int, list[str]]]:
    """The same rows with empty cells in the columns that are not kept.

    A row of several lines, or with more or fewer cells than the header, stays whole: it must be checked first.
    """
    header = next(rows, None)
    if header is None:
        return
    yield header
    names = [name.strip() for name in header[1]]
    dropped = [] if kept is None else [place for place, name in enumerate(names) if name not in kept]
    for line, row in rows:
        if dropped and len(row) == len(names) and "\n" not in "".join(row):
            for place in dropped:
                row[place] = ""
        yield line, row


def _check_header(path: UPath, header: list[str], written: list[tuple[int, list[str]]], needed: set[str]) -> None:
    doubled = [name for name in header if name and header.count(name) > 1]
    if doubled:
        raise InputError(f"{path} has the column {doubled[0]!r} twice: rename or remove one")
    missing = sorted(needed - set(header))
    if not missing:
        return
    first = ",".join(header)
    other = any(first.count(sign) > first.count(",") for sign in ";\t|")
    hint = "; separate its cells by commas" if other or len(header) == 1 else ""
    below = (line for line, row in written[1:MAX_LINES_ABOVE] if needed <= {cell.strip() for cell in row})
    if line := next(below, None):
        hint = f"; line {line} has them, so remove the lines above it"
    elif any(name[:1] == '"' for name in header):
        hint = "; write the quote right behind the comma, without a blank"
    raise InputError(
        f"{path} lacks the columns {missing}: found {[name for name in header if name]}{hint}; of a table of your own, "
        "name the columns with --etl.columns.image, .patient ('' if there is none) and so on"
    )


def _too_many(row: list[str]) -> str:
    """The step for a row with more cells than the header."""
    if any(re.match(r'\s+"', cell) for cell in row):
        return "write the quote of a cell that holds commas right behind the comma, without a blank"
    if any('\\"' in cell for cell in row):
        return 'within a cell in quotes, write a quote as "", without a backslash'
    if all(";" in cell or "\t" in cell for cell in row[:1]):
        return "separate the cells by commas, and write decimals with a point"
    return "put cells that hold commas in quotes, or name the further columns in the header"


def _looks(header: list[str], rows: list[list[str]], needed: set[str]) -> dict[int, set[str]]:
    """What the cells of each needed column look like, by its place."""
    return {
        place: {_look(row[place].strip()) for row in rows if len(row) > place and "\n" not in row[place]}
        for place, name in enumerate(header)
        if name in needed
    }


def _look(cell: str) -> str:
    """`#` for a number or an empty cell, the ending of a file name, `code`, `word`, or a text with each word as w."""
    if NUMBERS.fullmatch(cell):
        return "#"
    if ending := ENDING.search(cell):
        return ending[0].lower()
    if re.search(r"\s", cell):
        return re.sub(r"\w+", "w", cell)
    return "code" if re.search(r"\d", cell) else "word"


def _check_quotes(
    path: UPath, line: int, header: list[str], row: list[str], needed: set[str], looks: dict[int, set[str]]
) -> None:
    """Raises InputError for a cell of several lines that must have one, or in which a line looks like a row."""
    ends = line - sum(cell.count("\n") for cell in row)
    for name, cell in zip(header, row, strict=False):
        starts, ends = ends, ends + cell.count("\n")
        inside = cell.rstrip("\n").split("\n")[1:]
        is_row = (_is_row(part, looks, len(header), part is inside[-1]) for part in inside)
        if inside and (name in needed or any(is_row)):
            away = "" if name in needed else "; or, if the text belongs there, leave the column out of the table"
            raise InputError(
                f"{path} line {starts}: a quote opens a cell of the column {name!r} that ends in line "
                f"{ends}, and takes the rows in between with it: remove the stray quote, or double it{away}"
            )


def _is_row(part: str, looks: dict[int, set[str]], width: int, is_last: bool) -> bool:
    """Whether a line within a cell looks like a row, or, the last one, like its beginning: the rest are other cells."""
    cells = next(csv.reader([part]), [])
    within = {place: _look(cells[place].strip()) for place in looks if place < len(cells)}
    whole = len(cells) >= width > 1 and not any(cells[width:])
    begins = is_last and len(cells) > 1 and (len(within) > 1 or not {"word", "code", "#"}.issuperset(within.values()))
    return (whole or begins) and all(look in looks[place] for place, look in within.items())
