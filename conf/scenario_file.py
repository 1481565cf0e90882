"""Reads a scenario file that a setting names, such as that of one of several sources."""

from dataclasses import fields
from typing import NoReturn

from conf.arguments import Parser
from conf.errors import InputError
from conf.scenario import check_scenario
from conf.settings import Settings


def read_scenario(file: str, given: str) -> Settings:
    """The settings of a scenario file and, for what it does not set, the defaults; the command line has no part in it.

    given: the setting that names the file, for messages. Raises InputError for whatever is wrong in the file.
    """
    check_scenario(file, {}, given)
    parser = _FileParser(default_config_files=[])
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Settings, fail_untyped=True)
    try:
        parsed = parser.instantiate(parser.parse_args(["--config", file]))
        return Settings(**{stage.name: parsed[stage.name] for stage in fields(Settings)})
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


class _FileParser(Parser):
    """The command line's parser, which a wrong file does not let end the process."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(self.explain(message)) from ex
