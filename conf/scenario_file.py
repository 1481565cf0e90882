"""Reads and writes scenario files other than a command's own, such as those of several sources or of a study."""

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import NoReturn

import yaml

from conf.arguments import Parser
from conf.argv import lists_of_one
from conf.errors import InputError
from conf.hints import knobs
from conf.scenario import check_scenario
from conf.settings import Settings
from conf.writing import atomic_path


def read_scenario(file: str, given: str, words: Sequence[str] = ()) -> Settings:
    """The settings of a scenario file and, for what it does not set, the defaults.

    given: the setting that names the file, for messages. words: settings that win over the file's, as on a command
    line. Raises InputError for whatever is wrong in the file or the words.
    """
    check_scenario(file, {}, given)
    parser = _parser()
    parser.given = lists_of_one(list(words), {f"--{name}": knob.type for name, knob in knobs().items()})
    try:
        parsed = parser.instantiate(parser.parse_args(["--config", file, *parser.given]))
        return Settings(**{stage.name: parsed[stage.name] for stage in fields(Settings)})
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def write_scenario(path: Path, settings: Settings) -> None:
    """Writes a scenario file that has all that differs from the defaults; read_scenario returns the same settings."""
    with atomic_path(path) as temporary:
        text = yaml.safe_dump(_differences(settings.to_dict(), Settings().to_dict()), allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def _differences(ours: dict, usual: dict) -> dict:
    found = {
        name: _differences(value, usual[name]) if isinstance(value, dict) else value for name, value in ours.items()
    }
    return {name: value for name, value in found.items() if value != usual[name] and value != {}}


@cache
def _parser() -> "_FileParser":
    """Made once, because it takes a tenth of a second."""
    parser = _FileParser(default_config_files=[], allow_abbrev=False)
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Settings, fail_untyped=True)
    return parser


class _FileParser(Parser):
    """The command line's parser, which a wrong file does not let end the process."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(self.explain(message)) from ex
