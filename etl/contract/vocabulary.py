"""Names of findings: a name must be different from the others wherever a later stage makes another name of it."""

import re
import unicodedata
from collections.abc import Sequence

from conf.errors import InputError


def metric_name(name: str) -> str:
    """The name without characters that MLflow refuses in a metric; a finding may be called `Opacity (left)`."""
    return re.sub(r"[^\w\-. :]", "_", name)


def check_vocabulary(findings: Sequence[str], origin: str) -> None:
    """Raises InputError for a name that a later stage cannot take, or that it cannot tell from another one.

    Columns of Delta tables are the same in upper and lower case, and metrics lose special characters.
    origin: whose findings they are, for the message.
    """
    seen: dict[str, str] = {}
    for name in findings:
        if not name.strip() or any(unicodedata.category(character).startswith("C") for character in name):
            raise InputError(
                f"{origin} has a finding named {name!r}, expected visible characters in one line: rename it in the "
                "source, or name the findings with --etl.columns.findings"
            )
        other = seen.setdefault(metric_name(unicodedata.normalize("NFC", name).casefold()), name)
        if other is not name:
            raise InputError(
                f"{origin} has the findings {other!r} and {name!r}, which would share a metric and a column: rename "
                "one in the source, or name the findings with --etl.columns.findings"
            )
