"""Tests a registered model on films of another origin, and writes, records and prints what came out."""

from dataclasses import replace

import numpy as np
from rich.console import Console

from conf.arguments import with_same_settings
from conf.errors import InputError
from conf.settings import Settings
from conf.words import RESEARCH_USE, counted
from conf.workspace import Workspace
from etl.contract.schema import SPLITS, Card
from etl.contract.storage import located
from etl.contract.version import TableVersion
from inference.candidate.measuring.evaluate import score_split
from inference.external.films import columns_for, open_films, site_of
from inference.external.measure import measure
from inference.external.recalibrate import describe, recalibrate, refuse_classes, write_model
from inference.external.record import add_recalibrated, record
from inference.external.results import tables_of, title_of, write_report, write_results
from inference.external.seen import describe_check, find_seen, refuse_seen
from inference.external.standards import measure_standards, read_standard
from inference.film.stated import Stated, count_stated, lines_of
from inference.model.inputs import attributes_of
from inference.model.model_files import CHALLENGER, find_model
from inference.model.own_test import OwnTest, read_own_test
from inference.model.properties import Properties
from inference.model.served_model import ServedModel, open_served
from training.reading.plan import Split
from training.reading.readers import open_split

UNCHECKED = "not checked against the training"
console = Console(highlight=False)


def run(settings: Settings, workspace: Workspace, which: str) -> None:
    """Tests a version on scoring.source. which: an alias, or a version's number.

    Raises InputError if the model, its table or the films cannot be opened, if the training has seen a film, or if the
    films have no label of a finding that the model knows.
    """
    if not settings.scoring.source:
        raise InputError(
            "scoring.source is empty, expected the films of another hospital: give a folder with its labels, or a "
            "workspace with a table, by --scoring.source"
        )
    found = find_model(workspace, settings.inference.registered_model, which)
    model = open_served(found, settings.scoring.mode)
    if settings.validation.recalibrate:
        refuse_classes(model.properties)
    # From here on, because what is measured for hours must be recorded.
    with workspace.exclusive():
        test(settings, workspace, model)


def test(settings: Settings, workspace: Workspace, model: ServedModel) -> None:
    """Tests the model, and if it is asked for, recalibrates it; writes, records and prints what came out."""
    found, properties, mode, site = model.files, model.properties, model.mode, site_of(settings)
    trained = None if settings.validation.seen == "unchecked" else open_trained(settings, workspace, properties)
    films = open_films(settings, workspace, properties, trained.card.sizes_px if trained else [properties.size_px])
    columns = columns_for(properties.findings, films.card)
    splits = settings.validation.splits or [split for split in SPLITS if films.card.images[split]]
    if not (rows := films.rows(*splits)).size:
        raise InputError(f"the films have none in {' and '.join(splits)}: choose others by --validation.splits")
    rows["reason"] = find_seen(properties, trained, films, rows, settings.validation) if trained else None
    left_out = rows[rows.reason.notna()]
    if settings.validation.seen == "refuse":
        refuse_seen(left_out)
    if len(left_out) == len(rows):
        raise InputError(f"none of the {counted(len(rows), 'film')} is left to test: give others by --scoring.source")
    second = settings.validation.second
    standard = read_standard(second, films, rows, properties.findings) if second else None
    console.print(f"{found.title}, {mode.upper()}. {RESEARCH_USE}", markup=False, soft_wrap=True)
    scored = score_split(
        {mode: model.predict},
        whole(films, splits, properties.size_px),
        settings.inference.batch_size,
        properties,
        columns=columns,
        left_out=frozenset(left_out.image_id),
    )
    if np.isnan(scored.labels).all():
        raise InputError(
            f"none of the {counted(len(scored.labels), 'film')} to test has a known label of "
            f"{', '.join(properties.findings)}: give films that are labelled, or other splits by --validation.splits"
        )
    checked = describe_check(trained, films, properties, settings.validation) if trained else UNCHECKED
    seed = settings.training.seed
    report = {
        "note": RESEARCH_USE,
        "site": site,
        "source": str(located("scoring.source", settings.scoring.source)),
        "model": {"name": found.name, "version": found.version, "mode": mode, "run_id": properties.run_id},
        "films": describe_films(films.card, splits, len(left_out), checked),
        "findings": describe_findings(properties, films.card, columns),
        **measure(properties, scored, mode, own_test_of(model), seed),
    }
    if properties.attributes:
        report["attributes"] = count_stated(map(Stated, attributes_of(scored.images)), properties)
    if standard:
        report["second"] = measure_standards(properties, scored, mode, standard, seed)
    folder, fit = workspace.external(site), None
    # First what is sure, because a recalibration may be refused.
    write_results(folder, report, scored, left_out, properties)
    run_id = record(workspace, found, properties, report, folder)
    if settings.validation.recalibrate:
        table = films.card.delta_table_id
        fit = recalibrate(properties, scored, mode, found, site, table, settings.validation, seed)
        for note in fit.notes:
            console.print(note, markup=False, soft_wrap=True)
        report["recalibration"] = describe(fit, scored, mode, properties, seed)
        write_report(folder, report)
    show(report)
    console.print(f"Results: {folder}, MLflow run {run_id}", markup=False, soft_wrap=True)
    step = f"look at {folder / 'auroc.png'} and {folder / 'report.md'}"
    if fit:
        write_model(fit, report["recalibration"], found, site, folder / workspace.model.name)
        number = add_recalibrated(found, fit.properties, folder, site, run_id)
        console.print(
            f"Registered {found.name} version {number} as @{CHALLENGER}, recalibrated for {site}", markup=False
        )
        step += f"; to serve it: `{with_same_settings(f'python inference/promote.py {number}')}`"
    console.print(f"Next: {step}", markup=False, soft_wrap=True)


def open_trained(settings: Settings, workspace: Workspace, properties: Properties) -> TableVersion:
    """The version of the table that the model was trained on."""
    try:
        newest = TableVersion.of(workspace, elsewhere=settings.etl.table)
        table = newest.trained_on(properties.delta_table_id, properties.delta_version, "this model")
        # Fails here, before any work, if the table is gone.
        table.files("train")
        return table
    except InputError as error:
        raise InputError(
            f"{error}; without that table nobody can tell whether the training has seen these films: "
            "--validation.seen unchecked tests all the same, and every result says so"
        ) from error


def whole(table: TableVersion, splits: list[str], size_px: int) -> Split:
    """These splits of a table as one."""
    parts = [open_split(table, split, size_px) for split in splits]
    files, row_groups = ([one for part in parts for one in getattr(part, name)] for name in ("files", "row_groups"))
    return replace(parts[0], name=" and ".join(splits), files=files, row_groups=row_groups)


def own_test_of(model: ServedModel) -> OwnTest | str:
    """What the films are compared with, or why there is nothing."""
    if model.mode != "int8":
        return f"the answers on the model's own test split are INT8's, these are {model.mode.upper()}'s"
    return read_own_test(model.folder)


def describe_films(card: Card, splits: list[str], num_left_out: int, checked: str) -> dict:
    return {
        "title": card.title,
        "delta_table_id": card.delta_table_id,
        "delta_version": card.delta_version,
        "splits": splits,
        "left_out": num_left_out,
        "seen_by_training": checked,
    }


def describe_findings(properties: Properties, card: Card, columns: list[int | None]) -> dict:
    """What the films' table calls each finding of the model, and which findings only one of both knows."""
    return {
        "shared": {
            finding: card.findings[column]
            for finding, column in zip(properties.findings, columns, strict=True)
            if column is not None
        },
        "only_model": [name for name, column in zip(properties.findings, columns, strict=True) if column is None],
        "only_films": [name for place, name in enumerate(card.findings) if place not in columns],
    }


def show(report: dict) -> None:
    """Prints the measurements per finding, and what limits them."""
    console.print(title_of(report), markup=False, soft_wrap=True)
    for table in tables_of(report):
        console.print(table)
    for who, key in (("the model", "only_model"), ("these films", "only_films")):
        if names := report["findings"][key]:
            console.print(f"Only {who} know{'s' * (key == 'only_model')}: {', '.join(names)}", markup=False)
    if left := report.get("second", {}).get("left_out"):
        console.print(f"Only the second labels have: {', '.join(left)}", markup=False)
    share = report["unfamiliar"]
    console.print(f"{share['value']:.1%} of the films are unlike the training data, and no finding is called on them")
    for line in lines_of(report["attributes"]) if "attributes" in report else ():
        console.print(line, markup=False, soft_wrap=True)
    films = report["films"]
    left = f"; {counted(films['left_out'], 'film')} that it has seen were left out" * bool(films["left_out"])
    console.print(f"Overlap: {films['seen_by_training']}{left}")
    if "missing" in report["own_test"]:
        console.print(f"Not compared with the model's own test split: {report['own_test']['missing']}")
