"""Reads a study: a scenario, and the trainings that differ from it in some settings of the training.

    base: ../nih.yaml                       a scenario; paths are relative to this file
    settings: {etl.val_fraction: 0.3}       what differs from it in all runs
    runs:                                   trainings with a name, and what is theirs
      small: {model: resnet18}
      large: {model: densenet121, recipe: ../chexnet.yaml}
    vary:                                   each of them once with every combination of these
      seed: [0, 1, 2]

Names in `runs` and `vary` are those of settings of the training. `recipe` names a scenario whose training section is
taken first.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import yaml

from conf.arguments import DEMO_CONFIG
from conf.errors import InputError
from conf.hints import knobs, meant
from conf.scenario import check_scenario
from conf.scenario_file import read_scenario
from conf.settings import Settings, Training

KEYS = ("base", "settings", "runs", "vary")
RECIPE = "recipe"
SHARED = ("delta_version", "experiment")
"""settings of the training that all runs of a study share"""
QUICK_DIVISOR, QUICK_MIN_PX = 4, 32
"""a quick try has images of a quarter of the size, but no smaller ones than this, and one epoch per stage"""
NAME = re.compile(r"\w[\w.-]{0,99}")
EXAMPLE = "expected `base`, `settings`, `runs` and `vary`, as in conf/studies/ and docs/evidence.md"
Changes = dict[str, str]
"""setting of the training -> its value, as written on a command line"""


@dataclass(frozen=True)
class Study:
    """Trainings that share everything but settings of the training."""

    name: str
    base: str
    """scenario file that they share"""
    runs: dict[str, Settings]
    """name -> settings; their workspaces are left as the base has them"""

    @property
    def varied(self) -> list[str]:
        """Settings of the training that differ between the runs."""
        first, *others = (asdict(effective(run.training)) for run in self.runs.values())
        return [key for key in first if any(other[key] != first[key] for other in others)]

    @property
    def sizes_px(self) -> list[int]:
        """Sizes that the table must have."""
        return sorted({run.training.size_px for run in self.runs.values()})


def effective(training: Training) -> Training:
    """The settings without those of a stage that a training does not have, which have their defaults instead."""
    usual, unused = Training(), []
    unused += [] if training.head_epochs else ["head_learning_rate"]
    unused += [] if training.epochs else ["learning_rate", "warmup_epochs"]
    return replace(training, **{name: getattr(usual, name) for name in unused})


def base_of(file: str) -> str:
    """The scenario file that a study starts from: its `base`, or the demo's. Raises InputError for a faulty file."""
    parts = _read(Path(file).expanduser())
    base = _text(file, "base", parts["base"]) if "base" in parts else str(DEMO_CONFIG)
    return os.path.normpath(Path(file).expanduser().parent / Path(base).expanduser())


def read_study(file: str, words: Sequence[str] = (), base: str = "", quick: bool = False) -> Study:
    """Reads a study. words: settings of the command line, which win in every run. base: a scenario in place of `base`.

    quick: makes each training a quick try, see QUICK_DIVISOR.

    Raises InputError for a faulty file, a setting that does not exist or may not vary, a study of fewer than two runs,
    and runs that are the same training.
    """
    path, base = Path(file).expanduser(), base or base_of(file)
    parts = _read(path)
    common = _entries(path, "settings", parts["settings"]) if "settings" in parts else {}
    if own := [key for key in common if key in ("workspace", "tracking_server", "etl.table")]:
        raise InputError(f"{path}: {own[0]} is no part of a study: give it on the command line, --{own[0]}")
    for_all = [f"--{key}={_text(path, key, value)}" for key, value in common.items()]
    named = {"": {}}
    if "runs" in parts:
        named = {name: _changes(path, name, node) for name, node in _entries(path, "runs", parts["runs"]).items()}
    varied = [
        [(key, value) for value in _values(path, key, node)]
        for key, node in (_entries(path, "vary", parts["vary"]) if "vary" in parts else {}).items()
    ]
    runs: dict[str, Settings] = {}
    for (name, own), combination in product(named.items(), product(*varied)):
        if both := own.keys() & dict(combination).keys():
            raise InputError(f"{path}: {min(both)} is both in `runs` ({name}) and in `vary`: leave it in one of them")
        full = "-".join(filter(None, [name, *(_short(key, value) for key, value in combination)]))
        if full and (not NAME.fullmatch(full) or full in runs):
            raise InputError(
                f"{path}: {full!r} would be the name of {'two runs' if full in runs else 'a run'}, expected different "
                "names of up to 100 letters, digits, `_`, `.` and `-`: name the runs yourself, in `runs`"
            )
        changes = _with_recipe(path, {**own, **dict(combination)})
        given = [f"--training.{key}={value}" for key, value in changes.items()]
        try:
            settings = read_scenario(base, f"base of {path}:", [*for_all, *given, *words])
        except InputError as error:
            raise InputError(f"{path}, run {full}: {error}") from error
        runs[full] = replace(settings, training=_quick(settings.training)) if quick else settings
    _check_different(path, runs)
    return Study(path.stem, base, runs)


def _quick(training: Training) -> Training:
    size = max(QUICK_MIN_PX, training.size_px // QUICK_DIVISOR)
    epochs = {"head_epochs": min(1, training.head_epochs), "epochs": min(1, training.epochs), "warmup_epochs": 0.0}
    return replace(training, size_px=size, **epochs)


def _check_different(path: Path, runs: dict[str, Settings]) -> None:
    if len(runs) < 2:
        raise InputError(
            f"{path} describes {len(runs)} run, expected two or more: list what changes in `vary`, such as "
            "`seed: [0, 1, 2]`, or name trainings in `runs`"
        )
    seen: dict[str, str] = {}
    for name, settings in runs.items():
        if (other := seen.setdefault(str(asdict(effective(settings.training))), name)) != name:
            raise InputError(
                f"{path}: the runs {other} and {name} would be the same training: leave one of them out. A setting of "
                "the command line wins in all runs, --quick makes sizes and epochs smaller, and a stage without epochs "
                "has no learning rate"
            )


def _read(path: Path) -> dict[str, yaml.Node]:
    """The parts of the file. Scalars stay text, which is later read as on a command line."""
    try:
        tree = yaml.compose(path.read_text("utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise InputError(f"the study {path} cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the study {path} is no YAML file in UTF-8: {' '.join(str(error).split())}") from error
    if not isinstance(tree, yaml.MappingNode):
        raise InputError(f"the study {path} is no mapping: {EXAMPLE}")
    parts = _entries(path, "", tree)
    if unknown := [key for key in parts if key not in KEYS]:
        raise InputError(f"{path}: unknown key {unknown[0]}{meant(unknown[0], list(KEYS))}: {EXAMPLE}")
    return parts


def _entries(path: Path, part: str, node: yaml.Node) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise InputError(f"{path}:{node.start_mark.line + 1}: {part} has no entries: {EXAMPLE}")
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name, line = getattr(key, "value", ""), key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{path}:{line}: a list or mapping stands where a name is expected")
        if name in found:
            raise InputError(f"{path}:{line}: {name} is given twice")
        found[name] = value
    return found


def _changes(path: Path, name: str, node: yaml.Node) -> Changes:
    """What a named run changes, which may be nothing: `name: {}`."""
    entries = _entries(path, name, node) if getattr(node, "value", None) else {}
    for key in entries:
        _check_key(path, key)
    return {key: _text(path, key, value) for key, value in entries.items()}


def _values(path: Path, key: str, node: yaml.Node) -> list[str]:
    _check_key(path, key)
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        line = node.start_mark.line + 1
        raise InputError(f"{path}:{line}: {key} is no list of values: write what it varies over, such as [0, 1, 2]")
    return [_text(path, key, value) for value in node.value]


def _check_key(path: Path, key: str) -> None:
    names = [name.removeprefix("training.") for name in knobs() if name.startswith("training.")]
    if key in SHARED:
        raise InputError(f"{path}: {key} is the same in all runs of a study: put it into `settings`")
    if key not in (RECIPE, *names):
        hint = meant(key.removeprefix("training."), names)
        raise InputError(f"{path}: training has no setting {key}{hint or '; docs/settings.md lists them'}")


def _text(path: Path | str, key: str, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":null"):
        raise InputError(f"{path}:{node.start_mark.line + 1}: {key} has no single value, expected a number or a text")
    return node.value


def _short(key: str, value: str) -> str:
    """A varied value as part of a run's name: `seed2`, but `densenet121` alone."""
    if key == RECIPE:
        return Path(value).stem
    plain = re.sub(r"[^\w.-]", "_", value)
    return plain if key == "model" else f"{key}{plain}"


def _with_recipe(path: Path, changes: Changes) -> Changes:
    """The changes, after those of the recipe that they name."""
    if RECIPE not in changes:
        return changes
    own = {key: value for key, value in changes.items() if key != RECIPE}
    file = path.parent / changes[RECIPE]
    check_scenario(str(file), {}, f"{path}: {RECIPE}")
    section = _entries(file, "recipe", yaml.compose(file.read_text("utf-8"), yaml.SafeLoader)).get("training")
    if section is None:
        raise InputError(f"{path}: {RECIPE} {file} has no section `training`, of which a recipe consists")
    recipe = {key: node.value for key, node in _entries(file, "training", section).items() if key not in SHARED}
    return recipe | own
