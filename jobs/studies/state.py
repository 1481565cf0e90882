"""What a study has so far: its table, which the ETL makes once, and the trainings that have finished."""

import json
import os
import shlex
import sys
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path

from conf.errors import InputError
from conf.programs import run_and_stop
from conf.scenario_file import read_scenario, write_scenario
from conf.settings import Settings
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from jobs.studies.study import Study
from training.network.checkpoint import BEST, LAST, Checkpoint, State
from training.start.resume import changes_between

SCENARIO = "scenario.yaml"
MADE, MAKING = "table.yaml", "table.next.yaml"
"""scenarios of the ETL that made the study's table, and of one that is running or has failed"""
PROJECT = Path(os.path.relpath(Path(__file__).parents[2]))


def find_table(study: Study, workspace: Workspace) -> TableVersion:
    """The table of the study. The ETL makes it in the study's workspace, again if settings of phantoms or ETL change.

    A table that etl.table names is taken as it is. Raises InputError if that lacks a size; ends the process with the
    ETL's exit code if that fails.
    """
    base = next(iter(study.runs.values()))
    elsewhere, wanted, version = base.etl.table, set(study.sizes_px), base.training.delta_version
    if elsewhere:
        table = TableVersion.of(workspace, version, elsewhere)
        if lacking := sorted(wanted - set(table.card.sizes_px)):
            raise InputError(
                f"etl.table {elsewhere} has images of {table.card.sizes_px} px, the study needs {lacking} px too: run "
                "its ETL with these etl.sizes_px, or leave out --etl.table for a table of the study's own"
            )
        return table
    made = workspace.root / MADE
    before = read_scenario(str(made), "table of the study:") if made.exists() else None
    sizes = sorted(wanted | set(before.etl.sizes_px if before else ()))
    scenario = Settings(str(workspace.root), phantoms=base.phantoms, etl=replace(base.etl, sizes_px=sizes))
    # The study may have moved.
    is_made = before and replace(before, workspace=scenario.workspace) == scenario
    if not (is_made and workspace.card.exists()):
        write_scenario(workspace.root / MAKING, scenario)
        run_etl(workspace.root / MAKING)
        (workspace.root / MAKING).rename(made)
    return TableVersion.of(workspace, version)


def run_etl(scenario: Path) -> None:
    """Runs the ETL's command. Ends the process with its exit code if it fails."""
    command = ["spark-submit", str(PROJECT / "etl/preprocess.py"), "--config", str(scenario)]
    print(f"Making the table of the study: {shlex.join(command)}", flush=True)
    if code := run_and_stop(command):
        print(f"error: the ETL of the study failed with exit code {code}; its message is above", file=sys.stderr)
        sys.exit(code)


def prepare(settings: Settings, workspace: Workspace, table: TableVersion) -> None:
    """Writes the training's scenario, and the card that names the table, so that each command finds it.

    A workspace with another training, finished or not, is moved aside and kept, and a line says where.
    """
    if changes := other_training(settings, workspace, table):
        aside = next(place for number in count(1) if not (place := Path(f"{workspace.root}~{number}")).exists())
        with workspace.exclusive():
            # Not while another command works there.
            pass
        workspace.root.rename(aside)
        print(f"{workspace.root.name}: another training is there ({'; '.join(changes)}), now in {aside}", flush=True)
    table.name_in(workspace)
    write_scenario(scenario_of(workspace), settings)


def scenario_of(workspace: Workspace) -> Path:
    """The file with the settings of the training in this workspace."""
    return workspace.root / SCENARIO


def other_training(settings: Settings, workspace: Workspace, table: TableVersion) -> list[str]:
    """What the training in the workspace, interrupted or finished, has otherwise; empty if it is this one or none.

    Raises InputError for a checkpoint or saved state that cannot be read.
    """
    best, last = workspace.checkpoints / BEST, workspace.checkpoints / LAST
    if last.exists():
        state = State.load(last)
        return _changes(settings, state.settings, state, table)
    if not best.exists():
        return []
    checkpoint = Checkpoint.load(best)
    return _changes(settings, checkpoint.settings["training"], checkpoint, table)


def _changes(settings: Settings, was: dict, saved: Checkpoint | State, table: TableVersion) -> list[str]:
    now = asdict(settings.training) | {"table": (table.card.delta_table_id, table.card.delta_version)}
    was = was | {"table": (saved.delta_table_id, saved.delta_version)}
    if saved.plan:
        # Instead of the batch of a rank, because ranks may be shared out otherwise.
        was = was | {"batch_size": saved.plan["images_per_step"]}
        now["batch_size"] = settings.training.batch_size * max(1, settings.jobs.num_ranks)
    return changes_between(was, now)


def finished_run(workspace: Workspace) -> str:
    """Id of the MLflow run of the workspace's training if it has finished; otherwise empty."""
    best = workspace.checkpoints / BEST
    if not (best.exists() and workspace.summary.exists()) or (workspace.checkpoints / LAST).exists():
        return ""
    run_id = Checkpoint.load(best).run_id
    # The summary is written when all is measured.
    return run_id if _summary(workspace).get("training", {}).get("run_id") == run_id else ""


def is_registered(workspace: Workspace) -> bool:
    """Whether the finished training's model is in the registry."""
    summary = _summary(workspace)
    return summary.get("registry", {}).get("run_id") == summary["training"]["run_id"]


def _summary(workspace: Workspace) -> dict:
    return json.loads(workspace.summary.read_text(encoding="utf-8"))
