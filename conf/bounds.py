"""Bounds of the settings: written beside each knob, checked in one place."""

import math
import re
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, Literal, get_args, get_origin

from conf.errors import InputError


def at_least(low: float, default: float) -> Any:
    """A finite number from `low` on."""
    return bounded(default, lambda value: low <= value < math.inf, f"at least {low}")


def above(low: float, default: float) -> Any:
    """A finite number larger than `low`."""
    return bounded(default, lambda value: low < value < math.inf, f"more than {low}")


def between(low: float, high: float, default: float) -> Any:
    """A number from `low` to `high`, both included."""
    return bounded(default, lambda value: low <= value <= high, f"{low} to {high}")


def share(default: float) -> Any:
    """A fraction between 0 and 1, both excluded."""
    return bounded(default, lambda value: 0 < value < 1, "a share between 0 and 1")


def bounded(default: Any, accepts: Callable[[Any], bool], expected: str) -> Any:
    """A knob of a dataclass whose value must satisfy `accepts`. expected: what messages and --help say of it."""
    return field(default=default, metadata={"accepts": accepts, "expected": expected})


def are_sides(sides_px: list[int]) -> bool:
    """Whether these can be the sides of stored squares, pixels."""
    return bool(sides_px) and len(set(sides_px)) == len(sides_px) and all(32 <= side <= 4096 for side in sides_px)


def are_modalities(words: list[str]) -> bool:
    """Whether these can be values of the DICOM tag Modality, a Code String (PS3.5, section 6.2)."""
    return bool(words) and all(re.fullmatch("[A-Z0-9_]{1,16}", word) for word in words)


MODALITIES = {"accepts": are_modalities, "expected": "one or more codes in capitals, such as CR, DX or RG"}
"""metadata of a knob for DICOM modalities"""
SIDES = {"accepts": are_sides, "expected": "one or more different sides of 32 to 4096 pixels"}
"""metadata of a knob for sides of squares"""


def expectation(knob: Any) -> str:
    """What a knob accepts beyond its type, in words; empty if anything. knob: a field of a dataclass of settings."""
    if choices := choices_of(knob.type):
        return ("any of " if get_origin(knob.type) is list else "one of ") + ", ".join(choices)
    return knob.metadata.get("expected", "")


def accepted(knob: Any) -> str:
    """What a knob accepts, in words: its type and its bounds, or its choices."""
    return ", ".join(filter(None, [kind_of(knob.type), expectation(knob)]))


def kind_of(kind: Any) -> str:
    """What values of a type are, in words; empty for a choice, which expectation lists."""
    if choices_of(kind):
        return ""
    if get_origin(kind) is list:
        return "a list"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(kind, "")


def check(section: Any, name: str) -> None:
    """Raises InputError for the first knob of `section`, a dataclass named `name`, whose value is out of its bounds."""
    for knob in fields(section):
        value, choices = getattr(section, knob.name), choices_of(knob.type)
        accepts = knob.metadata.get("accepts", lambda _: True)
        if choices:
            values = value if get_origin(knob.type) is list else [value]
            require(set(values) <= set(choices), f"{name}.{knob.name}", value, expectation(knob))
        require(accepts(value), f"{name}.{knob.name}", value, expectation(knob))


def require(valid: object, key: str, got: object, expected: str) -> None:
    """Raises InputError, which names the knob `key`, unless `valid`."""
    if not valid:
        raise InputError(f"{key} is {got!r}, expected {expected}")


def choices_of(kind: Any) -> tuple[str, ...]:
    """The words of a Literal, or of a list of them; empty for other types."""
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    return get_args(kind) if get_origin(kind) is Literal else ()
