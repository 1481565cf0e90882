"""Cells of tables for people: numbers that may be undefined, and their intervals."""

from collections.abc import Iterable, Sequence

UNDEFINED = "-"


def value_cell(value: float | None, form: str = ".3f") -> str:
    """The number in the format `form`; None is undefined."""
    return UNDEFINED if value is None else f"{value:{form}}"


def interval_cell(ends: dict[str, float | None], form: str = ".3f") -> str:
    """The interval from ends["low"] to ends["high"], which are None where it is undefined."""
    return UNDEFINED if ends["low"] is None else f"{ends['low']:{form}} to {ends['high']:{form}}"


def with_interval(ends: dict[str, float | None], form: str = ".3f") -> str:
    """Such as `0.812 [0.790, 0.834]`; without brackets if the interval is undefined."""
    interval = "" if ends["low"] is None else f" [{ends['low']:{form}}, {ends['high']:{form}}]"
    return value_cell(ends["value"], form) + interval


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    # A pipe would begin the next cell.
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells)]
