"""The sources of a run: that of etl.source, or several, each of which has a scenario file that says how it is read."""

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from upath import UPath

from conf.errors import InputError
from conf.scenario_file import read_scenario
from conf.settings import Dicom, Etl
from etl.contract.schema import last_name
from etl.contract.storage import located

OF_THE_RUN = (
    "sources",
    "shared_patients",
    "corrections",
    "quality",
    "sizes_px",
    "square",
    "crop",
    "crop_margin",
    "lungs",
    "intensity",
    "grey_bits",
    "rows_per_row_group",
    "rows_per_file",
    "max_quarantined_fraction",
    "table",
)
"""settings of `etl` that count for all sources of a run; all others are those of the scenario of each source"""
OF_BOTH = ("findings", "seed")
"""settings that a run has as well as its sources: the joint findings, and the seed of the order of rows"""
NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Source:
    """One source of a run."""

    name: str
    """value of the column `source`; of several sources also the first part of the names of images and patients"""
    place: UPath
    settings: Etl
    """how it is read; what counts for all sources is as the run sets it"""
    file: str = ""
    """its scenario file; empty if it is the one source of etl.source"""
    notes: tuple[str, ...] = ()
    """sentences on settings of the file that do not count"""


def single_source(place: UPath, etl: Etl) -> Source:
    """The one source of etl.source, named after its folder."""
    return Source(last_name(str(place)), place, etl)


def open_sources(etl: Etl) -> list[Source]:
    """The sources that etl.sources names, each as its scenario file says, in this order.

    Raises InputError for a file that cannot be read or names no folder, for a name that is none or that two have, and
    for settings of the run that its sources would have to set.
    """
    defaults = Etl()
    own = (knob.name for knob in fields(Etl) if knob.name not in (*OF_THE_RUN, *OF_BOTH))
    for name in own:
        if getattr(etl, name) != getattr(defaults, name):
            raise InputError(
                f"etl.{name} is set beside etl.sources, but says how one source is read: set it in the scenario file "
                "of that source"
            )
    sources = [_open(entry, etl) for entry in etl.sources]
    seen: dict[str, str] = {}
    for source in sources:
        if other := seen.get(source.name.casefold()):
            raise InputError(
                f"{other} and {source.file} of etl.sources are both called {source.name!r}: give one another name, as "
                "NAME=FILE"
            )
        seen[source.name.casefold()] = source.file
    if strangers := set(etl.shared_patients) - {source.name for source in sources}:
        raise InputError(
            f"etl.shared_patients names {min(strangers)!r}, which is none of the sources "
            f"{', '.join(source.name for source in sources)}"
        )
    return sources


def for_the_run(etl: Etl, sources: list[Source]) -> Etl:
    """The settings that the card records: those of the run, with the DICOM films and the masks that any source has.

    A model takes over which DICOM files its table keeps.
    """
    if not etl.sources:
        return etl
    kept = [source.settings.dicom for source in sources]
    modalities = list(dict.fromkeys(word for dicom in kept for word in dicom.modalities))
    masks = ", ".join(filter(None, (source.settings.masks for source in sources)))
    return replace(etl, source="", masks=masks, dicom=Dicom(modalities, any(dicom.burned_in for dicom in kept)))


def reading_of(etl: Etl) -> dict:
    """The settings that say how a source is read, as plain values."""
    return {name: value for name, value in asdict(etl).items() if name not in OF_THE_RUN}


def open_compared(etl: Etl) -> Source:
    """The source that etl.compared_labels names. Raises InputError as open_sources does."""
    return _open(etl.compared_labels, etl, "etl.compared_labels")


def _open(entry: str, etl: Etl, setting: str = "etl.sources") -> Source:
    name, _, file = entry.partition("=") if "=" in entry else (Path(entry).stem, "", entry)
    if not NAME.fullmatch(name):
        raise InputError(
            f"{setting} calls a source {name!r}, expected letters, digits, points, hyphens and underscores: name it "
            f"otherwise, as NAME={file}"
        )
    said = read_scenario(file, setting).etl
    if said.sources:
        raise InputError(f"{file} has etl.sources itself, expected a single source: list its sources beside the others")
    if said.source in ("", "phantoms"):
        raise InputError(
            f"etl.source in {file} is {said.source!r}, expected the folder of a source: set it there. Phantoms are a "
            "source for a table of their own"
        )
    joint = {knob: getattr(etl, knob) for knob in OF_THE_RUN} | {"sources": [], "shared_patients": []}
    read = replace(said, **joint)
    defaults = Etl()
    moot = [
        f"etl.{knob}"
        for knob in OF_THE_RUN
        if knob != "table" and getattr(said, knob) not in (getattr(defaults, knob), getattr(etl, knob))
    ]
    note = f"{', '.join(moot)} of {file} does not count, because such settings are the same for all sources"
    return Source(name, located(f"etl.source in {file}", said.source), read, file, (note,) * bool(moot))
