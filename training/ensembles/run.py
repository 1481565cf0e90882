"""Combines an ensemble's members: measures their vote like one model, and makes one checkpoint of them."""

from dataclasses import asdict, replace

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from conf.arguments import with_same_settings
from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace, update_summary
from etl.contract.version import TableVersion
from training.ensembles.join import join, read_checkpoints
from training.ensembles.members import PREDICTED, Member, read_members, table_of
from training.ensembles.voting import MIN_WEIGHT, equal_weights, fit_weights, vote
from training.measures.cells import interval_cell, value_cell
from training.measures.intervals import bootstrap_areas, bootstrap_differences
from training.network.checkpoint import BEST
from training.record.evaluation import FIGURES, NUM_RESAMPLES, describe_intervals, evaluate
from training.record.tracking import TrackedRun


def run(settings: Settings, workspace: Workspace) -> None:
    """Writes the ensemble's report, predictions, figures and checkpoint into the workspace, and its MLflow run."""
    members = read_members(settings.ensemble.members, workspace)
    table = table_of(members[0])
    try:
        checkpoints, reason = read_checkpoints(members), ""
    except InputError as error:
        checkpoints, reason = [], str(error)
    title = f"ensemble, {settings.ensemble.method}"
    with workspace.exclusive(), TrackedRun(workspace, settings, table, None, title, section="ensemble") as tracked:
        (workspace.checkpoints / BEST).unlink(missing_ok=True)
        report = combine(settings, workspace, table, members)
        tracked.log_evaluation(workspace, report)
        if checkpoints:
            votes = np.array([list(member["weights"].values()) for member in report["members"]])
            measured = report["splits"]["val"]["auroc"]["mean"]["value"]
            val_auroc = float("nan") if measured is None else measured
            joined = join(checkpoints, members, votes, settings, table.card, tracked, val_auroc)
            joined.save(workspace.checkpoints / BEST)
            # The commands that follow find the table by it.
            table.name_in(workspace)
        for name in FIGURES:
            tracked.log_figure(workspace.figures / f"{name}.png")
        auroc = report["splits"]["test"]["auroc"]["mean"]["value"]
        update_summary(workspace, ensemble={**asdict(settings.ensemble), "test_auroc": auroc, "run_id": tracked.run_id})
    show(settings, report)
    for folder, member in zip(settings.ensemble.members, report["members"], strict=True):
        if max(member["weights"].values()) <= 2 * MIN_WEIGHT:
            print(f"{folder} has no weight for any finding: leave it out, it only costs time")
    print(f"Report, with the weights of every finding: {workspace.evaluation}")
    if reason:
        print(f"It cannot be registered: {reason}")
    else:
        print(f"Next: {with_same_settings('python inference/register.py')}")


def combine(settings: Settings, workspace: Workspace, table: TableVersion, members: list[Member]) -> dict:
    """Writes the ensemble's evaluation.json, predictions.parquet and figures; returns the report.

    Its `members` have the weights, each member's own AUROC with interval, and by how much the ensemble's is above it,
    measured on the same resamples.
    """
    val, test = (members[0].splits[name] for name in PREDICTED)
    of_val, of_test = (np.stack([member.splits[name].logits for member in members]) for name in PREDICTED)
    exclusive = members[0].exclusive
    if settings.ensemble.method == "weights":
        weights = fit_weights(val.labels, of_val, exclusive)
    else:
        weights = equal_weights(of_val)
    val, test = (
        replace(split, logits=vote(logits, weights).astype(np.float32))
        for split, logits in ((val, of_val), (test, of_test))
    )
    findings, patients, seed = table.card.findings, members[0].patients, settings.training.seed
    sections = {"method": settings.ensemble.method, "members": []}
    for member, voices, own in zip(members, weights, of_test, strict=True):
        resamples = {"num_resamples": NUM_RESAMPLES, "seed": seed}
        gain = bootstrap_differences(test.labels, own, test.logits, patients, **resamples)
        auroc = member.test_auroc
        if exclusive:
            # On the probabilities that vote: a temperature can change the order in which a class puts the images.
            auroc = describe_intervals(findings, bootstrap_areas(test.labels, own, patients, **resamples).auroc)
        described = {
            "workspace": str(member.workspace.root),
            "weights": dict(zip(findings, voices.tolist(), strict=True)),
            "test_auroc": auroc,
            "test_auroc_gain": describe_intervals(findings, gain.auroc),
        }
        sections["members"].append(described)
    return evaluate(workspace, table, val, test, np.ones(len(findings)), seed, sections, exclusive)


def show(settings: Settings, report: dict) -> None:
    """Prints a line per member, with its mean weight and the ensemble's gain over it, and a line for the ensemble."""
    table = Table(title=Text(f"Mean AUROC, test split, {report['data']}", "table.title"), title_justify="left")
    for column in ("", "weight", "AUROC", "95% interval", "gain", "95% interval"):
        table.add_column(column, justify="right" if column else "left", overflow="fold", no_wrap=bool(column))
    for folder, member in zip(settings.ensemble.members, report["members"], strict=True):
        weight = np.mean(list(member["weights"].values()))
        own, gain = (_cells(member[key]["mean"]) for key in ("test_auroc", "test_auroc_gain"))
        table.add_row(Text(folder), f"{weight:.3f}", *own, *gain)
    table.add_section()
    table.add_row("ensemble", "", *_cells(report["splits"]["test"]["auroc"]["mean"]), "", "", style="bold")
    Console(highlight=False).print(table)


def _cells(interval: dict[str, float | None]) -> tuple[str, str]:
    return value_cell(interval["value"]), interval_cell(interval)
