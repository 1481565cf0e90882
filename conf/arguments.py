"""The command line: settings of every command, a command's own arguments, --help, and what a mistyped name meant.

`--config FILE` chooses a scenario (default conf/demo.yaml), `--section.key value` changes one setting, `--print_config`
shows the resolved tree.
"""

import argparse
import json
import re
import shlex
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, get_args, get_origin

import jsonargparse
from jsonargparse import ArgumentParser

from conf.argv import lists_of_one, modernised, repeats, switched_on
from conf.bounds import accepted, choices_of, expectation, kind_of
from conf.errors import EXIT_INPUT_ERROR
from conf.hints import MOVED, is_section, knobs, meant
from conf.scenario import check_scenario
from conf.settings import Settings

PLAIN = {*string.ascii_letters, *string.digits, *"_-./~"}
"""characters of words that need no quotes in a list"""
DEMO_CONFIG = Path(__file__).parent / "demo.yaml"


class Resume(StrEnum):
    """What a command does about an earlier training in its workspace, as --resume says it."""

    NO = "false"
    """begins anew"""
    YES = "true"
    """resumes; an error if there is nothing to resume"""
    AUTO = "auto"
    """resumes if there is a saved state, does nothing if this very training has finished, and begins otherwise"""


def load_settings(description: str, argv: list[str] | None = None, reads: tuple[str, ...] = ()) -> Settings:
    """Settings from `--config`, `--section.key value` and the defaults, in falling priority.

    description: shown by --help. argv: arguments without the program's name; None takes the command line's.
    reads: sections and settings that this command reads, which --help shows; empty: all.
    An unknown name or a wrong type ends the process with exit code 2 and a message that names it. Raises InputError for
    a wrong scenario file or a value out of its bounds.
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
    scenarios = [
        word.partition("=")[2] or following
        for word, following in zip(argv, [*argv, ""][1:], strict=True)
        if word.partition("=")[0] == "--config"
    ]
    parser = Parser(
        description=description,
        usage=" ".join(["%(prog)s", usage, "[--config FILE] [--section.key VALUE ...]"]).replace("  ", " "),
        epilog="--help --all lists the settings of the other stages too; every command accepts them all.",
        # An abbreviated --config would be read on top of the demo's settings instead of replacing them.
        allow_abbrev=False,
        default_config_files=[] if scenarios else [str(DEMO_CONFIG)],
    )
    parser.add_argument("--config", action="config", help="scenario to run, a YAML file (default: conf/demo.yaml)")
    add_own(parser)
    own = {name for action in parser._actions for name in action.option_strings or [action.dest.upper()]}
    for scenario in filter(None, scenarios):
        check_scenario(scenario, {name.lstrip("-").lower(): name for name in own})
    types = {name: getattr(action, "_typehint", None) for action in parser._actions for name in action.option_strings}
    types |= {f"--{name}": knob.type for name, knob in knobs().items()}
    argv = modernised(argv, own)
    given_twice = repeats(argv, types)
    argv = lists_of_one(switched_on(argv, {name for name in own if types.get(name) is bool}), types)
    parser.add_class_arguments(Settings, fail_untyped=True)
    show_all = "--all" in argv and not {"--help", "-h"}.isdisjoint(argv)
    parser.describe(() if show_all else reads)
    parser.given = [word for word in argv if not show_all or word != "--all"]
    if given_twice:
        parser.error(given_twice)
    parsed = parser.instantiate(parser.parse_args(parser.given))
    return Settings(**{stage.name: parsed[stage.name] for stage in fields(Settings)}), parsed


def add_switch(parser: ArgumentParser, name: str, text: str) -> None:
    """Adds an argument that is False unless given, as `--name` or as `--name true`."""
    parser.add_argument(name, nargs="?", const=True, default=False, type=bool, help=text)


def add_model(parser: ArgumentParser) -> None:
    """Adds --model, the path of a package; empty: the model is asked of the registry."""
    text = "model package to use instead of the registry: the file that inference/package.py made, or a folder into "
    parser.add_argument("--model", metavar="PATH", default="", help=text + "which it was unpacked")


def add_resume(parser: ArgumentParser) -> None:
    """Adds --resume, a value of Resume; given alone, it is `true`."""
    text = "resume the interrupted training of this workspace from its last saved state; auto: resume it, begin "
    text += "one if there is none, and do nothing if this very training has finished"
    parser.add_argument(
        "--resume", nargs="?", const="true", default="false", choices=[str(value) for value in Resume], help=text
    )


class Parser(ArgumentParser):
    """jsonargparse's parser with a help of what the command reads, and messages that say which setting was meant."""

    shown: frozenset[str] | None = None
    given: Sequence[str] = ()
    """the command line that is parsed"""

    def describe(self, reads: tuple[str, ...]) -> None:
        """Adds each setting's bounds to its help, which shows only the settings in `reads`, if that names any."""
        known = knobs()
        for action in self._actions:
            knob = known.get(action.dest)
            # The text of a setting with choices explains them.
            if knob and (bound := expectation(knob)) and not choices_of(knob.type):
                action.help = f"{action.help}; {bound}"
        always = ("workspace", "tracking_server")
        self.shown = frozenset(name for name in known if not reads or name in always or _is_in(name, reads))

    def format_help(self) -> str:
        """The help without hidden settings, and without options for whole sections, which no scenario uses."""
        names, texts = knobs(), [action.help for action in self._actions]
        for action in self._actions:
            if is_section(action.dest) or (action.dest in names and action.dest not in (self.shown or names)):
                action.help = argparse.SUPPRESS
        text = super().format_help()
        # A suppressed action is left out of --print_config too.
        for action, help_ in zip(self._actions, texts, strict=True):
            action.help = help_
        return text

    def dump(self, cfg: jsonargparse.Namespace, **options: object) -> str:
        """The settings as a scenario file may have them: without this command's own arguments."""
        return super().dump(
            jsonargparse.Namespace({stage.name: cfg[stage.name] for stage in fields(Settings)}), **options
        )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with exit code 2 and the message."""
        self.print_usage(sys.stderr)
        print(f"error: {self.explain(message)}", file=sys.stderr)
        print(f"`{self.prog} --help` lists what this command reads, `--help --all` every setting.", file=sys.stderr)
        sys.exit(EXIT_INPUT_ERROR)

    def explain(self, message: str) -> str:
        """A message of jsonargparse's in the words of this project, with a hint where one is near."""
        known = knobs()
        typed = re.search(r'[Kk]ey "([\w.]+)":\s+Expected an? (.+?)\. Got value: (.*)', message, re.DOTALL)
        section = re.match(r'Parser key "([\w.]+)":\s+Unable to load config', message)
        if typed and typed[1] in known:
            message = f"{typed[1]} is {typed[3].strip()!r}, expected {_wanted(known[typed[1]], typed[3].strip())}"
        elif typed:
            kind = next(
                (getattr(action, "_typehint", None) for action in self._actions if action.dest == typed[1]), None
            )
            message = f"{typed[1]} is {typed[3].strip()!r}, expected {kind_of(kind) or typed[2]}"
        elif (bare := re.match(r"argument --([\w.]+): expected one argument", message)) and bare[1] in known:
            message = f"{bare[1]} has no value, expected {accepted(known[bare[1]])}"
        elif section:
            example = next(name for name in known if _is_in(name, (section[1],)))
            message = f"{section[1]} is a section: give one of its settings, such as --{example} VALUE"
        message = re.sub(r"Group '([\w.]+)' does not accept option '(\w+)'", r"unrecognized setting --\1.\2", message)
        options = [name for action in self._actions for name in action.option_strings]
        names = [name for name in options if name.startswith("--") and not is_section(name[2:])]
        wrong = re.findall(r"--([\w.]+)", message) if "unrecognized" in message else []
        own = [action.dest for action in self._actions if not action.option_strings]
        hints = [f"; give it without an option: `{self.prog} {name.upper()}`" for name in wrong if name in own]
        strays = message.removeprefix("unrecognized arguments: ").split() if "unrecognized arguments" in message else []
        hints += [hint for word in strays if (hint := self._meant_by(word))][:1]
        hints = hints or [hint for name in wrong if f"--{name}" not in names and (hint := meant(name, names))]
        return f"{message}{''.join(hints)}"

    def _meant_by(self, word: str) -> str:
        """A hint for a word that is no option: the setting without its dashes, or a list without its brackets."""
        known, name = knobs(), word.lstrip("-\u2013\u2014").partition("=")[0]
        if name in known and not word.startswith("--"):
            return f"; did you mean --{name}?"
        before = list(self.given[: self.given.index(word)]) if word in self.given else []
        option, _, value = next((one for one in reversed(before) if one.startswith("--")), "").partition("=")
        knob = known.get(option.removeprefix("--"))
        if knob and get_origin(knob.type) is list and not word.startswith("-"):
            values = [*re.findall(r"[^\[\]\", ]+", value), word]
            return f"; write the list in brackets: {option} '[{', '.join(values)}]'"
        return ""


def settings_in(argv: list[str]) -> list[str]:
    """The words of the command line that set settings, without the arguments that only this command has."""
    sections, words, result = {field.name for field in fields(Settings)} | {"config"}, iter(argv), []
    for word in words:
        name, given, _ = word.removeprefix("--").rstrip("+").partition("=")
        if word.startswith("--") and name.partition(".")[0] in sections and name not in MOVED:
            result += [word] if given else [word, next(words, "")]
    return result


def pairs_in(words: list[str]) -> list[tuple[str, str]]:
    """Option, such as `--etl.seed`, and value of each setting. words: as settings_in returns them."""
    pairs, rest = [], iter(words)
    for word in rest:
        name, given, value = word.partition("=")
        pairs.append((name, value if given else next(rest, "")))
    return pairs


def with_same_settings(command: str) -> str:
    """`command` with the settings of this process, for messages that name the next stage."""
    return " ".join([command, *map(shlex.quote, settings_in(sys.argv[1:]))])


def _is_in(name: str, sections: tuple[str, ...]) -> bool:
    """Whether a setting is one of these, or in one of these sections."""
    return any(f"{name}.".startswith(f"{section}.") for section in sections)


def _wanted(knob: Field, value: str) -> str:
    """What the setting expects instead of this value of another type."""
    is_list = get_origin(knob.type) is list
    part = get_args(knob.type)[0] if is_list else None
    if is_list and value[:1] == "[":
        words = [word.strip(" '\"") for word in value.strip("[]").split(",")]
        return f"a list that YAML can read: put each word in double quotes, such as {shlex.quote(json.dumps(words))}"
    if is_list and "," in value and value[:1] != "{":
        return f"a list in brackets, such as '[{value}]'"
    # YAML has made False of a word such as no.
    is_text = part is str and re.match(r"[^\W\d]|[./~]", value) and value not in ("True", "False", "None")
    if is_text or value in (choices_of(part) or ()) or (part is int and value.isdigit()):
        return f"a list: write {f'[{value}]' if set(value) <= PLAIN else json.dumps([value])}"
    quoted = "; put words such as no, and numbers, in quotes" if str in (knob.type, part) else ""
    return accepted(knob) + quoted
