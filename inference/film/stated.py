"""Age, sex and view with which a film is answered, where they come from, and what speaks against them.

The words are those that the ETL understands in tables and DICOM tags (etl/contract/words.py), so that training and
serving cannot differ.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from conf.errors import InputError
from conf.words import SEXES, VIEWS, counted
from etl.contract.words import MAX_AGE_YEARS, age_of, says_nothing, sexes_of, view_of
from inference.model.inputs import Attributes
from inference.model.properties import ATTRIBUTES, Properties

if TYPE_CHECKING:
    from etl.contract.images.dicom.tags import Tags

EXPECTED = {
    "age": f"years from 0 to {MAX_AGE_YEARS} such as 64, a number with a unit such as 18M for months, or unknown",
    "sex": f"{', '.join(SEXES)} or unknown",
    "view": f"{', '.join(VIEWS)} or unknown",
}
"""name of each value that may be given -> what it may be"""
COLUMN_OF = dict(zip(EXPECTED, ATTRIBUTES, strict=True))
MAX_SHOWN = 50
"""characters of a word in a message"""
MAX_DOUBTS = 10
"""kinds of doubts in a list for people"""

Given = Mapping[str, float | str | None]
"""column of ATTRIBUTES -> the value that somebody gave, None for unknown; a column that is not there was not given"""


@dataclass(frozen=True)
class Stated:
    """What is stated about one film."""

    values: Attributes
    given: tuple[str, ...] = ()
    """columns that somebody gave; the others come from the file's DICOM tags"""
    strange: tuple[str, ...] = ()
    """names of the values that the tags state in a way that is not understood, so that they are unknown"""

    def with_given(self, given: Given) -> "Stated":
        """The same with the values that somebody gave, which win over the file's."""
        strange = tuple(name for name in self.strange if COLUMN_OF[name] not in given)
        return replace(self, values=replace(self.values, **given), given=tuple(given), strange=strange)

    def to_dict(self) -> dict:
        """The values used, ready for JSON; null is unknown."""
        return {**vars(self.values), "given": list(self.given)}

    def __str__(self) -> str:
        """Such as `age 64 years (given), sex F (from the file), view unknown`."""
        return ", ".join(
            f"{_text(name, value)}{_origin(column in self.given, value)}"
            for (name, column), value in zip(COLUMN_OF.items(), vars(self.values).values(), strict=True)
        )


NOTHING = Stated(Attributes())


def read_given(age: str = "", sex: str = "", view: str = "") -> Given:
    """What somebody gave, in words. An empty word gives nothing, and `unknown` is a value too.

    Raises InputError for a word that is not understood, and for an age below 0 or above MAX_AGE_YEARS.
    """
    given = {}
    meanings = {"age": lambda word: age_of(word.upper()), "sex": sexes_of([]), "view": view_of}
    for (name, meaning), word in zip(meanings.items(), (age, sex, view), strict=True):
        if not word.strip():
            continue
        value = None if says_nothing(word) else meaning(word.strip())
        if value is None and not says_nothing(word):
            raise InputError(f"{name} is {word[:MAX_SHOWN]!r}, expected {EXPECTED[name]}")
        # The contract has no word for some views and sexes that are understood.
        given[COLUMN_OF[name]] = None if value == "" else value
    return given


def describe_given(given: Given) -> str:
    """Such as `age 64 years, sex unknown`."""
    return ", ".join(_text(name, given[column]) for name, column in COLUMN_OF.items() if column in given)


def refuse_given(properties: Properties, given: Given) -> None:
    """Raises InputError if something was given to a model that takes pixels alone."""
    if given and not properties.attributes:
        names = " and ".join(name for name, column in COLUMN_OF.items() if column in given)
        raise InputError(
            f"{names} given, but the model takes pixels alone: leave {'it' if len(given) == 1 else 'them'} out, or ask "
            "a model that was trained with training.tabular"
        )


def stated_in(tags: "Tags | None") -> Stated:
    """What a file's DICOM tags state. tags: None for other files, which state nothing."""
    if tags is None:
        return NOTHING
    age, sex, view = age_of(tags.age), *(word if word in known else None for word, known in _words(tags))
    words = {"age": (tags.age, age), "sex": (tags.sex, sex), "view": (tags.view, view)}
    strange = [name for name, (word, value) in words.items() if value is None and not says_nothing(word)]
    strange += ["age"] * ("age" in tags.strange and "age" not in strange)
    return Stated(Attributes(age, sex, view), strange=tuple(strange))


def doubts_of(stated: Stated, properties: Properties) -> list[str]:
    """Sentences for people: what the model's training did not have, and what was not understood."""
    trained, values = properties.attributes["trained_on"], vars(stated.values)
    said = [f"the file's tag for the {name} is not understood, so it is taken for unknown" for name in stated.strange]
    new = [name for name, column in COLUMN_OF.items() if values[column] is None and not trained[column]["unknown"]]
    said += [f"{' and '.join(new)} unknown, but known for every film of the training split"] * bool(new)
    if stated.values.age_years is not None:
        said += _age_doubts(stated.values.age_years, trained["age_years"])
    return said + [
        f"{_text(name, values[name])}: no film of the training split has it"
        for name in ("sex", "view")
        if values[name] is not None and not trained[name].get(values[name])
    ]


def count_stated(films: Iterable[Stated], properties: Properties) -> dict:
    """Number of `films`; of those for which each column is `unknown`; of those with each of the `doubts`, for JSON."""
    films = list(films)
    unknown = {column: sum(vars(film.values)[column] is None for film in films) for column in ATTRIBUTES}
    doubts = Counter(doubt for film in films for doubt in doubts_of(film, properties))
    return {"films": len(films), "unknown": unknown, "doubts": dict(doubts.most_common())}


def lines_of(counts: dict) -> list[str]:
    """The numbers of count_stated for people, such as `12 films: age is unknown for 3, sex for 0, view for 12`."""
    age, sex, view = (f"{counts['unknown'][column]:,}" for column in ATTRIBUTES)
    first = f"{counted(counts['films'], 'film')}: age is unknown for {age}, sex for {sex}, view for {view}"
    doubts = [f"  {counted(number, 'film')}: {doubt}" for doubt, number in counts["doubts"].items()]
    left = [f"  and {len(doubts) - MAX_DOUBTS} other warnings of this kind"] * (len(doubts) > MAX_DOUBTS)
    return [first, *doubts[:MAX_DOUBTS], *left]


def _age_doubts(age_years: float, seen: dict) -> list[str]:
    if seen["low"] is None:
        return [f"{_text('age', age_years)}: no film of the training split has a known age"]
    # The table's ages are float32.
    if seen["low"] <= float(np.float32(age_years)) <= seen["high"]:
        return []
    span = f"{seen['low']:g} to {seen['high']:g} years"
    return [f"{_text('age', age_years)} is outside the ages of the training split, {span}"]


def _words(tags: "Tags") -> list[tuple[str, tuple[str, ...]]]:
    return [(tags.sex, SEXES), (tags.view, VIEWS)]


def _text(name: str, value: float | str | None) -> str:
    if value is None:
        return f"{name} unknown"
    return f"{name} {value:.3g} years" if name == "age" else f"{name} {value}"


def _origin(is_given: bool, value: float | str | None) -> str:
    return " (given)" if is_given else "" if value is None else " (from the file)"
