"""The names of findings: which a table may have, so that every later stage can take them and tell them apart.

A name becomes a column of the scores, a metric in MLflow, a key of JSON files, a file name, and text in figures and
pages. Spark and some databases do not distinguish `Edema` from `edema`, and neither do people.
"""

import re
import unicodedata
from collections.abc import Sequence

from conf.errors import InputError

MAX_CHARACTERS = 100
"""MLflow takes 250 for a metric, whose name has up to 40 characters more; a longer name is a sentence"""
RESERVED = {
    "mean": "is what reports and MLflow call the mean over the findings",
    "all": "is what reports call all findings together",
    "distance": "is the column of a served model for the distance from the training data",
}
TEN_CROP = "tencrop"
SOURCE = "in the label table or the class folders, or choose and rename findings with --etl.findings"


def check_vocabulary(findings: Sequence[str], then: str = "", where: str = SOURCE) -> None:
    """Raises InputError for a name that a later stage cannot take, and for two names that it takes for one.

    then: what to do after the names were changed, if the ETL has already run. where: they can be changed.
    """
    then = then and f"; then {then}"
    for name in findings:
        if fault := _fault_of(name):
            # repr, because the character that is to blame may be invisible.
            raise InputError(f"the finding {name!r:.120} {fault}: rename it {where}{then}")
    for form in (spelling, _metric):
        seen: dict[str, str] = {}
        for name in findings:
            if form(name) in seen:
                other = seen[form(name)]
                raise InputError(
                    f"the findings {other!r} and {name!r} {_likeness(other, name)}: rename one {where}{then}"
                )
            seen[form(name)] = name


def metric_name(name: str) -> str:
    """The name without characters that MLflow refuses in a metric; a finding may be called `Opacity (left)`."""
    return re.sub(r"[^\w\-. :]", "_", name)


def spelling(name: str) -> str:
    """The name as somebody might spell it who means the same: without case, accents and kinds of gap."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    plain = "".join(character for character in letters if not unicodedata.combining(character))
    return re.sub(r"[\s_\-]+", "", plain.casefold())


def _fault_of(name: str) -> str:
    """What is wrong with a single name; empty if nothing is."""
    if not name:
        return "is empty"
    if name != name.strip():
        return "has a blank at its start or end"
    odd = [character for character in name if not character.isprintable()]
    if odd:
        return f"contains {odd[0]!r}, which cannot be seen or printed"
    if len(name) > MAX_CHARACTERS:
        return f"has {len(name)} characters, expected at most {MAX_CHARACTERS}"
    spelled = spelling(name)
    if spelled.startswith(TEN_CROP):
        return "begins with ten_crop, by which reports call averages over ten crops"
    return RESERVED.get(spelled, "")


def _likeness(one: str, other: str) -> str:
    if one == other:
        return "have the same name"
    if spelling(one) == spelling(other):
        return "differ only by case, accents, blanks, hyphens or underscores"
    return f"would both be {metric_name(other)!r} in MLflow"


def _metric(name: str) -> str:
    return metric_name(name).casefold()
