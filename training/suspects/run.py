"""Judges the labels of a table by the predictions of trainings, and writes and prints what was found."""

from rich.console import Console

from conf.settings import Settings
from conf.words import counted
from conf.workspace import Workspace, update_summary
from etl.contract.version import TableVersion
from training.suspects.find import Found, find_suspects
from training.suspects.page import write_page
from training.suspects.predicted import read_predicted
from training.suspects.results import SUSPECTS, TO_JUDGE, refuse_judged, report_of, shown_of, table_of, write_results

console = Console(highlight=False)


def run(settings: Settings, workspace: Workspace) -> None:
    """Writes the results into label_quality/ of the workspace.

    Raises InputError if there is no table or no finished training of its images, if no finding has enough labels, or if
    to_judge.csv has judgements that a new one would replace.
    """
    table = TableVersion.of(workspace, elsewhere=settings.etl.table)
    folders = settings.label_quality.trainings or [str(workspace.root)]
    with workspace.exclusive():
        refuse_judged(workspace)
        predicted, workspaces = read_predicted(table, folders)
        found = find_suspects(predicted, settings.label_quality, settings.training.seed)
        shown = shown_of(found, settings.label_quality.shown)
        notes = write_page(workspace, table, found, shown, predicted, workspaces)
        report = report_of(table, found, predicted, [str(place.root) for place in workspaces], notes)
        write_results(workspace, report, found, shown)
        suspects = {name: part["suspects_present"] + part["suspects_absent"] for name, part in found.findings.items()}
        update_summary(workspace, label_quality={"images": len(predicted.rows), "suspects": suspects})
    show(workspace, report, found)


def show(workspace: Workspace, report: dict, found: Found) -> None:
    """Prints a line per finding, what was left out, and what to do next."""
    console.print(table_of(report))
    for finding, why in found.left_out.items():
        console.print(f"Left out: {finding}: {why}", markup=False, soft_wrap=True)
    for note in report["notes"]:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    folder = workspace.label_quality
    console.print(
        f"{counted(len(found.suspects), 'label')} that the model contradicts: {folder / SUSPECTS}",
        markup=False,
        soft_wrap=True,
    )
    step = f"look at {folder / 'page.html'}, fill in {TO_JUDGE}, move it elsewhere, and name it by --etl.corrections"
    console.print(f"Next: {step}", markup=False, soft_wrap=True)
