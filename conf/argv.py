"""What becomes of the words of a command line before they are parsed: former spellings, and lists."""

import json
import shlex
import sys
from typing import get_args, get_origin

from conf.hints import MOVED

# Former settings that were switches, and the words that may follow one as its value.
SWITCHES, TRUTHS = ("--etl.rebuild", "--training.resume"), ("true", "false", "yes", "no")


def modernised(argv: list[str], own: set[str]) -> list[str]:
    """The arguments with former settings in their new spelling (MOVED), each with a note on standard error.

    own: options and positional arguments of this command; a former setting of another command is dropped.
    """
    words, result = list(argv), []
    while words:
        word = words.pop(0)
        name, given, value = word.partition("=")
        spelling, command = MOVED.get(name.removeprefix("--"), ("", "")) if word.startswith("--") else ("", "")
        if not spelling:
            result.append(word)
            continue
        # A switch may be given without a value: the next word may be a file.
        is_value = words and not words[0].startswith("--") and (name not in SWITCHES or words[0].lower() in TRUTHS)
        if not given and is_value:
            given, value = "=", words.pop(0)
        if spelling not in own:
            print(f"note: {name} has no effect here; it is now the argument {spelling} of {command}", file=sys.stderr)
            continue
        print(f"note: {name} is now the argument {spelling} of this command", file=sys.stderr)
        if given:
            result += [value] if spelling == "VERSION" else [f"{spelling}={value}"]
        else:
            # Without a value a switch is on; any other argument is refused by the parser.
            result.append(word if spelling == "VERSION" else spelling)
    return result


def repeats(argv: list[str], types: dict[str, type]) -> str:
    """A fault if a list is given twice, of which the parser would take the last one only; empty if there is none.

    Of another option the last value counts, as usual, and a note on standard error says so. Switches have no value, and
    of several --config each is read. types: option -> its type.
    """
    given: dict[str, list[str]] = {}
    for word, following in zip(argv, [*argv, ""][1:], strict=True):
        name, has_value, value = word.partition("=")
        if name in types:
            given.setdefault(name, []).append(value if has_value else following * (not following.startswith("--")))
    given.pop("--config", None)
    for name, values in given.items():
        if len(values) > 1 and get_origin(types[name]) is list:
            parts = ", ".join(filter(None, (value.strip().removeprefix("[").removesuffix("]") for value in values)))
            return f"{name.lstrip('-')} is given twice: write {name} {shlex.quote(f'[{parts}]')}"
        if len(set(values)) > 1:
            print(f"note: {name} is given twice: {values[-1]} counts", file=sys.stderr)
    return ""


def switched_on(argv: list[str], switches: set[str]) -> list[str]:
    """The arguments with each switch that has no value as `--switch=true`: the next word may be a file.

    switches: options that are on if they are given.
    """
    nexts = [*argv, ""][1:]
    return [
        f"{word}=true" if word in switches and following.lower() not in TRUTHS else word
        for word, following in zip(argv, nexts, strict=True)
    ]


def lists_of_one(argv: list[str], types: dict[str, type]) -> list[str]:
    """The arguments with a single value of a list as a list: `--etl.views PA` means `[PA]`.

    types: option -> its type.
    """
    lists = {name: get_args(kind)[0] for name, kind in types.items() if get_origin(kind) is list}
    words, result = list(argv), []
    while words:
        name, given, value = words.pop(0).partition("=")
        if name in lists and not given and words and not words[0].startswith("--"):
            given, value = "=", words.pop(0)
        # A comma may be part of a name or separate two.
        if name in lists and value and value[0] != "[" and "," not in value:
            value = f"[{value}]" if lists[name] is int else json.dumps([value])
        result.append(f"{name}{given}{value}")
    return result
