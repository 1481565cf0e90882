"""The field's terms for findings: which names of different sources, tables and models mean the same.

terms.yaml holds the terms, what each source prints for them, and where. Only this module reads it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import yaml

from etl.contract.vocabulary import spelling

FILE = Path(__file__).with_name("terms.yaml")


def term_of(name: str) -> str | None:
    """The term that a finding's name stands for, in any spelling of etl/contract/vocabulary.py; None if not known."""
    return _terms().get(spelling(name))


def parts_of(name: str) -> tuple[str, ...]:
    """The terms of which the name's term is the union, such as Nodule and Mass of `Nodule/Mass`; empty for others."""
    return _unions().get(term_of(name), ())


def unions_with(name: str) -> tuple[str, ...]:
    """The unions of which the name's term is a part."""
    term = term_of(name)
    return tuple(union for union, parts in _unions().items() if term in parts)


def meaning(name: str) -> str:
    """What two names have in common that mean the same: their term, or their spelling where the term is not known."""
    return term_of(name) or spelling(name)


def shared(findings: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names, one of each vocabulary, that mean the same, in the order of `findings`.

    Names pair that have the same spelling, then names of the same term. A name is in one pair at most: if several of
    one vocabulary mean the same, only those pair of which the spelling tells which is meant. A union, such as
    Nodule/Mass, pairs with itself only, not with its parts.
    """
    pairs: dict[str, str] = {}
    for form in (spelling, meaning):
        rest = [name for name in findings if name not in pairs]
        taken = set(pairs.values())
        mine, theirs = _single(rest, form), _single([name for name in others if name not in taken], form)
        pairs |= {name: theirs[key] for key, name in mine.items() if key in theirs}
    return [(name, pairs[name]) for name in findings if name in pairs]


def meant_by(name: str, findings: Sequence[str]) -> list[str]:
    """The findings that `name` may stand for: the one of that name, else of that spelling, else those of its term."""
    if name in findings:
        return [name]
    same = [finding for finding in findings if spelling(finding) == spelling(name)]
    return same or [finding for finding in findings if meaning(finding) == meaning(name)]


def names_of(term: str | None) -> list[str]:
    """What sources print for a term, each name once, the term itself first; empty if it is none."""
    printed = _file()["terms"].get(term)
    return [] if printed is None else list(dict.fromkeys([term, *_names(printed)]))


def _single(names: Sequence[str], form: Callable[[str], str]) -> dict[str, str]:
    """Form -> name, for the names whose form no other one of them has."""
    forms = Counter(map(form, names))
    return {form(name): name for name in names if forms[form(name)] == 1}


def _names(printed: dict[str, str | list[str]]) -> Iterable[str]:
    for names in printed.values():
        yield from [names] if isinstance(names, str) else names


@cache
def _file() -> dict:
    return yaml.safe_load(FILE.read_text("utf-8"))


@cache
def _terms() -> dict[str, str]:
    """Spelling -> term."""
    return {spelling(name): term for term in _file()["terms"] for name in names_of(term)}


@cache
def _unions() -> dict[str, tuple[str, ...]]:
    return {union: tuple(parts) for union, parts in _file()["unions"].items()}
