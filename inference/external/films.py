"""The films of another origin, as a table: another workspace's, or one that the ETL makes of a labelled folder."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from conf.errors import InputError
from conf.programs import run_and_stop
from conf.scenario_file import write_scenario
from conf.settings import Dicom, Quality, Settings, restore
from conf.workspace import Workspace
from etl.contract.schema import SPLITS, Card
from etl.contract.storage import is_folder, is_local, located
from etl.contract.terms import shared
from etl.contract.version import TableVersion
from inference.model.properties import Properties, check_table, preparation_of

PROJECT = Path(__file__).parents[2]
SCENARIO = "scenario.yaml"
MAX_SHOWN = 20
"""findings in a message"""


def site_of(settings: Settings) -> str:
    """What reports and folders call the films' origin. Raises InputError if nothing is left of the source's name."""
    source = settings.scoring.source.rstrip("/")
    name = settings.validation.site or re.sub(r"[^\w.-]+", "_", source.rpartition("/")[2]).strip("._")
    if not name:
        raise InputError(f"scoring.source {settings.scoring.source!r} gives no name: choose one by --validation.site")
    return name


def open_films(settings: Settings, workspace: Workspace, properties: Properties, sizes_px: list[int]) -> TableVersion:
    """The table of scoring.source, which is a workspace, or a folder of labelled films in the layout of etl.format.

    Of a folder, the ETL makes a table below workspace.external first, with the preparation of the model's films, and
    brings it up to date the next time. sizes_px: the squares that it stores; those of the model's table, so that equal
    films have equal hashes. Raises InputError if there is no such place, or if the model does not take its pixels; ends
    the process with the ETL's exit code if that fails.
    """
    source = settings.scoring.source
    folder = located("scoring.source", source)
    if not is_folder(folder):
        raise InputError(f"scoring.source {source} is no folder, expected labelled films or a workspace with a table")
    refuse_other_source(workspace.external(site_of(settings)), str(folder))
    if is_local(folder) and (folder / "card.json").is_file():
        other = Workspace.at(source, setting="scoring.source")
        if other.root == workspace.root and not settings.validation.splits:
            raise InputError(
                f"scoring.source is the workspace {workspace.root} of the model itself: give films of another origin, "
                "or choose its test split by --validation.splits '[test]'"
            )
    else:
        other = Workspace.at(str(workspace.external(site_of(settings))))
        run_etl(settings, other, properties, sizes_px)
    table = TableVersion.of(other)
    check_table(properties, table.card, other.root)
    return table


def refuse_other_source(folder: Path, source: str) -> None:
    """Raises InputError if `folder` has results of other films under the same name."""
    report = folder / "report.json"
    before = json.loads(report.read_text(encoding="utf-8"))["source"] if report.is_file() else source
    if before != source:
        raise InputError(
            f"{folder} has the results of {before}, which {source} would replace: name these films otherwise by "
            "--validation.site"
        )


def run_etl(settings: Settings, other: Workspace, properties: Properties, sizes_px: list[int]) -> None:
    """Runs the ETL's command on scoring.source into the workspace `other`, by a scenario that is kept there."""
    # Those films are tested that the model would take in service.
    prepared = {name: getattr(properties, name) for name in preparation_of({})}
    prepared |= {"lungs": properties.finds_lungs_by}
    prepared |= {"quality": restore(Quality, properties.quality), "dicom": restore(Dicom, properties.dicom)}
    etl = replace(
        settings.etl,
        source=settings.scoring.source,
        sources=[],
        shared_patients=[],
        sizes_px=sizes_px,
        table="",
        **prepared,
    )
    write_scenario(other.root / SCENARIO, Settings(str(other.root), etl=etl))
    command = ["spark-submit", str(PROJECT / "etl" / "preprocess.py"), "--config", str(other.root / SCENARIO)]
    print(f"The ETL makes a table of {settings.scoring.source} in {other.root}", flush=True)
    if code := run_and_stop(command):
        sys.exit(code)


def columns_for(findings: list[str], card: Card) -> list[int | None]:
    """For each finding of the model its place in the table's vocabulary, None if the table does not label it.

    They are matched by the field's terms (etl/contract/terms.py): NIH's Effusion is CheXpert's Pleural Effusion.
    Raises InputError if the table labels none of them.
    """
    pairs = dict(shared(findings, card.findings))
    columns = [card.findings.index(pairs[name]) if name in pairs else None for name in findings]
    known = [sum(card.known[split][card.findings[place]] for split in SPLITS) for place in columns if place is not None]
    if not any(known):
        why = "have no label of them" if known else f"label {', '.join(card.findings[:MAX_SHOWN])}"
        raise InputError(
            f"the model knows {', '.join(findings[:MAX_SHOWN])}, and the films of {card.title} {why}: give films that "
            "are labelled for one of these findings"
        )
    return columns
