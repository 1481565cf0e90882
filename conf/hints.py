"""Names of the settings, and what a mistyped or former one stands for."""

import difflib
from dataclasses import Field, fields, is_dataclass

from conf.settings import Settings

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
    """Dotted name -> field, of every setting in the order of conf/settings."""
    found = {}
    for knob in fields(section):
        name = prefix + knob.name
        found |= knobs(knob.type, f"{name}.") if is_dataclass(knob.type) else {name: knob}
    return found


def is_section(name: str) -> bool:
    """Whether the name is that of a section, such as `training` or `etl.columns`."""
    return any(knob.startswith(f"{name}.") for knob in knobs())


def meant(name: str, options: list[str]) -> str:
    """A hint for an unknown name: where it has moved to, or the options it may stand for; empty if none is near."""
    if name in MOVED:
        spelling, command = MOVED[name]
        return f"; it is now the argument {spelling} of {command}"
    lasts: dict[str, list[str]] = {}
    for option in options:
        lasts.setdefault(option.lstrip("-").rpartition(".")[2], []).append(option)
    last = name.rpartition(".")[2]
    whole = {option.lstrip("-"): option for option in options}
    close = [whole[key] for key in difflib.get_close_matches(name, whole, n=1, cutoff=0.7)]
    # A section that is misspelt says which of several settings of one name is meant.
    near = close if "." in name and close and close[0] in lasts.get(last, []) else lasts.get(last) or close
    near = near or [option for key in difflib.get_close_matches(last, lasts, n=1, cutoff=0.7) for option in lasts[key]]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""
