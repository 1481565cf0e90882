"""The command line: settings of every command, a command's own arguments, --help, and what a mistyped name meant.

`--config FILE` chooses a scenario (default conf/demo.yaml), `--section.key value` changes one setting, `--print_config`
shows the resolved tree.
"""

import argparse
import difflib
import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import NoReturn, get_args, get_origin

import jsonargparse
from jsonargparse import ArgumentParser

from conf.bounds import choices_of, expectation
from conf.errors import EXIT_INPUT_ERROR
from conf.settings import Settings

DEMO_CONFIG = Path(__file__).parent / "demo.yaml"
# Former settings that are arguments of one command now -> the new spelling and that command.
MOVED = {
    "etl.rebuild": ("--rebuild", "etl/preprocess.py and jobs/pipeline.py"),
    "training.resume": ("--resume", "training/train.py and jobs/pipeline.py"),
    "inference.version": ("VERSION", "inference/promote.py and inference/lineage.py"),
    "inference.why": ("--why", "inference/promote.py and inference/rollback.py"),
    "jobs.retention_hours": ("--retention_hours", "jobs/maintain.py"),
    "jobs.keep_versions": ("--keep_versions", "jobs/maintain.py"),
}


def knobs(section: type = Settings, prefix: str = "") -> dict[str, Field]:
    """Dotted name -> field, of every setting in the order of conf/settings.py."""
    found = {}
    for knob in fields(section):
        name = prefix + knob.name
        found |= knobs(knob.type, f"{name}.") if is_dataclass(knob.type) else {name: knob}
    return found


def load_settings(description: str, argv: list[str] | None = None, reads: tuple[str, ...] = ()) -> Settings:
    """Settings from `--config`, `--section.key value` and the defaults, in falling priority.

    description: shown by --help. argv: arguments without the program's name; None takes the command line's.
    reads: sections and settings that this command reads, which --help shows; empty: all.
    An unknown name, a wrong type or a missing file ends the process with exit code 2 and a message that names it.
    """
    return load_arguments(description, "", lambda parser: None, argv, reads)[0]


def load_arguments(
    description: str,
    usage: str,
    add_own: Callable[[ArgumentParser], None],
    argv: list[str] | None = None,
    reads: tuple[str, ...] = (),
) -> tuple[Settings, jsonargparse.Namespace]:
    """load_settings for a command with arguments of its own, such as files; the second value holds those too.

    usage: how its own arguments are written, for --help. add_own: adds them to the parser.
    """
    argv = sys.argv[1:] if argv is None else argv
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    chosen = any(arg == "--config" or arg.startswith("--config=") for arg in argv)
    parser = Parser(
        description=description,
        usage=" ".join(["%(prog)s", usage, "[--config FILE] [--section.key VALUE ...]"]).replace("  ", " "),
        epilog="--help --all lists the settings of the other stages too; every command accepts them all.",
        # An abbreviated --config would be read on top of the demo's settings instead of replacing them.
        allow_abbrev=False,
        default_config_files=[] if chosen else [str(DEMO_CONFIG)],
    )
    parser.add_argument("--config", action="config", help="scenario to run, a YAML file (default: conf/demo.yaml)")
    add_own(parser)
    own = {name for action in parser._actions for name in action.option_strings or [action.dest.upper()]}
    argv = lists_of_one(modernised(argv, own))
    parser.add_class_arguments(Settings, fail_untyped=True)
    show_all = {"--help", "--all"} <= set(argv)
    _describe(parser, () if show_all else reads)
    parsed = parser.instantiate(parser.parse_args([word for word in argv if not show_all or word != "--all"]))
    return Settings(**{stage.name: parsed[stage.name] for stage in fields(Settings)}), parsed


def add_switch(parser: ArgumentParser, name: str, text: str) -> None:
    """Adds an argument that is False unless given, as `--name` or as `--name true`."""
    parser.add_argument(name, nargs="?", const=True, default=False, type=bool, help=text)


class Parser(ArgumentParser):
    """jsonargparse's parser with messages that say which setting was meant."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with exit code 2 and the message."""
        known = knobs()
        typed = re.search(r'key "([\w.]+)":\s+Expected an? (.+?)\. Got value: (.*)', message, re.DOTALL)
        if typed and typed[1] in known:
            kind = getattr(known[typed[1]].type, "__name__", str(known[typed[1]].type))
            wanted = expectation(known[typed[1]]) or kind
            if "," in typed[3] and kind == "list" and typed[3].strip()[0] != "[":
                wanted = f"a list in brackets, such as '[{typed[3].strip()}]'"
            message = f"{typed[1]} is {typed[3].strip()!r}, expected {wanted}"
        message = re.sub(r"Group '([\w.]+)' does not accept option '(\w+)'", r"unrecognized setting --\1.\2", message)
        names = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        wrong = re.findall(r"(?:--|[Kk]ey [\"'])([\w.]+)", message)
        # A value of the wrong type says nothing about the name.
        wrong = [] if "Expected" in message else wrong
        own = [action.dest for action in self._actions if not action.option_strings]
        hints = [f"; give it without an option: `{self.prog} {name.upper()}`" for name in wrong if name in own]
        hints = hints or [hint for name in wrong if f"--{name}" not in names and (hint := meant(name, names))]
        self.print_usage(sys.stderr)
        print(f"error: {message}{''.join(hints)}", file=sys.stderr)
        print(f"`{self.prog} --help` lists what this command reads, `--help --all` every setting.", file=sys.stderr)
        sys.exit(EXIT_INPUT_ERROR)


def meant(name: str, options: list[str]) -> str:
    """A hint for an unknown name: where it has moved to, or the options it may stand for; empty if none is near."""
    if name in MOVED:
        spelling, command = MOVED[name]
        return f"; it is now the argument {spelling} of {command}"
    lasts: dict[str, list[str]] = {}
    for option in options:
        lasts.setdefault(option.lstrip("-").rpartition(".")[2], []).append(option)
    last = name.rpartition(".")[2]
    near = lasts.get(last) or difflib.get_close_matches(f"--{name}", options, n=1, cutoff=0.7)
    near = near or [option for key in difflib.get_close_matches(last, lasts, n=1, cutoff=0.7) for option in lasts[key]]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""


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
        if not given and words and not words[0].startswith("--"):
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


def lists_of_one(argv: list[str]) -> list[str]:
    """The arguments with a single value of a list setting as a list: `--etl.views PA` means `[PA]`."""
    lists = {f"--{name}": get_args(knob.type)[0] for name, knob in knobs().items() if get_origin(knob.type) is list}
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


def settings_in(argv: list[str]) -> list[str]:
    """The words of the command line that set settings, without the arguments that only this command has."""
    sections, words, result = {field.name for field in fields(Settings)} | {"config"}, iter(argv), []
    for word in words:
        name, given, _ = word.removeprefix("--").rstrip("+").partition("=")
        if word.startswith("--") and name.partition(".")[0] in sections and name not in MOVED:
            result += [word] if given else [word, next(words, "")]
    return result


def with_same_settings(command: str) -> str:
    """`command` with the settings of this process, for messages that name the next stage."""
    return " ".join([command, *map(shlex.quote, settings_in(sys.argv[1:]))])


def _describe(parser: Parser, reads: tuple[str, ...]) -> None:
    """Adds each setting's bounds to its help, and hides settings that are not in `reads`, if that names any."""
    known = knobs()
    for action in parser._actions:
        if action.dest in known:
            knob = known[action.dest]
            # The text of a setting with choices explains them.
            if (bound := expectation(knob)) and not choices_of(knob.type):
                action.help = f"{action.help}; {bound}"
            shown = not reads or any(f"{action.dest}.".startswith(f"{name}.") for name in reads)
            if not shown and action.dest not in ("workspace", "tracking_server"):
                action.help = argparse.SUPPRESS
        elif any(name.startswith(f"{action.dest}.") for name in known):
            # A whole section from a file of its own, which no scenario does.
            action.help = argparse.SUPPRESS
