"""Checks a scenario file before it is read: what jsonargparse would ignore or take for something else is an error."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import yaml

from conf.errors import InputError
from conf.hints import is_section, knobs, meant
from conf.settings import Settings

HERE = Path(__file__).parent
TAG = "tag:yaml.org,2002:"
KNOWN_TAGS = {TAG + kind for kind in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")}
NULL, INT = TAG + "null", TAG + "int"
# Whole numbers in base 8 and 60 (YAML 1.1, which later versions have dropped).
MISLEADING = re.compile(r"[-+]?0[0-9_]+|.*:.*")
EXAMPLE = "expected sections with settings, such as `training:` and below it, indented, `epochs: 10`"


def check_scenario(file: str, own: dict[str, str], given: str = "--config") -> None:
    """Raises InputError, with all that is wrong, unless the file has known settings in known sections, each once.

    own: the command's own arguments, which a file cannot have: name -> spelling. given: the option or setting that
    names the file. Types and bounds of the values are not checked here.
    """
    try:
        tree = yaml.compose(Path(file).expanduser().read_text("utf-8"), yaml.SafeLoader)
    except OSError as error:
        own = HERE / Path(file).name
        other = f", or give the scenario that comes with CheXScale: {given} {own}" if own.is_file() else ""
        raise InputError(f"{given} {file} cannot be read ({error.strerror}): check the path{other}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{given} {file} is no YAML file in UTF-8: {' '.join(str(error).split())}") from error
    if not isinstance(tree, yaml.MappingNode) or not tree.value:
        out = "; or leave --config out for the demo's" * (given == "--config")
        raise InputError(f"{given} {file} has no settings: {EXAMPLE}{out}")
    if faults := list(_faults(tree, "", own, set())):
        raise InputError("; ".join(f"{file}:{line}: {fault}" for line, fault in faults))


def _faults(section: yaml.MappingNode, prefix: str, own: dict[str, str], seen: set[str]) -> Iterator[tuple[int, str]]:
    """Line, counted from 1, and fault of every entry that is wrong.

    prefix: what the names in this section begin with, such as `training.`. seen: the names that the file has given.
    """
    names = knobs()
    for key, value in section.value:
        name, line = f"{prefix}{getattr(key, 'value', '')}", key.start_mark.line + 1
        if name in seen:
            yield line, f"{name} is given twice"
        elif is_section(name) and isinstance(value, yaml.MappingNode):
            yield from _faults(value, f"{name}.", own, seen)
        elif is_section(name):
            yield line, f"{name} is a section: {EXAMPLE}"
        elif name in own:
            yield line, f"{name} is no setting but an argument of this command: give {own[name]} on the command line"
        elif getattr(key, "value", "") == "<<":
            yield line, f"{name} is a merge key, which is not read: write the settings out"
        elif name not in names:
            sections = ", ".join(field.name for field in fields(Settings))
            hint = f"; did you mean {name.lower()}?" if is_section(name.lower()) else meant(name, list(names))
            yield line, f"unknown setting {name}{hint or f'; known sections are {sections}'}"
        elif getattr(value, "tag", "") == NULL:
            none = ", or write '' if there is none" if names[name].type is str and not names[name].metadata else ""
            yield line, f"{name} has no value: give one, or leave the line out for the default{none}"
        nodes = list(_nodes(value))
        if tags := [node.tag for node in nodes if node.tag not in KNOWN_TAGS]:
            yield line, f"{name} has the tag {tags[0].replace(TAG, '!!')}, which is not read: leave the tag out"
        for number in (node.value for node in nodes if node.tag == INT and MISLEADING.fullmatch(node.value)):
            wanted = names[name].type if name in names else int
            if str in (wanted, *get_args(wanted)):
                yield line, f"{name} is {number}, expected a text: put it in quotes"
            else:
                meaning = yaml.safe_load(number)
                tens = f"{int(number)}, or " if number.isdigit() and int(number) != meaning else ""
                said = f"write {tens}{meaning}" + " if that is meant" * bool(tens or not number.isdigit())
                yield line, f"{name} is {number}, which YAML takes for {meaning}: {said}"
        seen.add(name)


def _nodes(value: yaml.Node) -> Iterator[yaml.Node]:
    """The value and, of a list, its parts."""
    yield value
    if isinstance(value, yaml.SequenceNode):
        for part in value.value:
            yield from _nodes(part)
