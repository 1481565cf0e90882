"""What a study has so far: its table, which the ETL makes once, and the trainings that have finished."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

from conf.errors import InputError
from conf.programs import exit_code_of, own_environment
from conf.scenario_file import write_scenario
from conf.settings import Settings
from conf.workspace import Workspace
from etl.contract.version import TableVersion, keep_card
from jobs.studies.study import Study
from training.network.checkpoint import BEST, LAST, Checkpoint
from training.start.resume import changes_between

PROJECT = Path(os.path.relpath(Path(__file__).parents[2]))


def find_table(study: Study, workspace: Workspace) -> TableVersion:
    """The table of the study, which the ETL makes or brings up to date if the settings ask for another one.

    Raises InputError if the ETL fails.
    """
    base = next(iter(study.runs.values()))
    elsewhere, wanted = base.etl.table, set(study.sizes_px)
    try:
        table = TableVersion.of(workspace, base.training.delta_version, elsewhere)
    except InputError:
        # There is none yet. If one is there and cannot be read, the ETL says why.
        table = None
    if table and wanted <= set(table.card.sizes_px):
        now = asdict(base.etl)
        made = {key: value for key, value in table.card.settings.items() if key in now.keys() - {"sizes_px", "table"}}
        # A table that was named may be of anybody's making.
        if elsewhere or all(now[key] == value for key, value in made.items()):
            return table
    scenario = workspace.root / "table.yaml"
    sizes = sorted(wanted | set(table.card.sizes_px if table else ()))
    etl = replace(base.etl, sizes_px=sizes)
    write_scenario(scenario, replace(base, workspace=str(workspace.root), etl=etl))
    command = ["spark-submit", str(PROJECT / "etl/preprocess.py"), "--config", str(scenario)]
    print(f"Making the table of the study: {shlex.join(command)}", flush=True)
    code = exit_code_of(subprocess.run(command, env=own_environment(), check=False).returncode)
    if code:
        print(f"error: the ETL of the study failed with exit code {code}; its message is above", file=sys.stderr)
        sys.exit(code)
    return TableVersion.of(workspace, base.training.delta_version, elsewhere)


def prepare(settings: Settings, workspace: Workspace, table: TableVersion) -> None:
    """Writes the training's scenario, and the card that names the table, so that each command finds it."""
    keep_card(replace(table.card, table=table.shards.removesuffix("/shards")), workspace)
    write_scenario(scenario_of(workspace), settings)


def scenario_of(workspace: Workspace) -> Path:
    return workspace.root / "scenario.yaml"


def finished_run(settings: Settings, workspace: Workspace, table: TableVersion) -> str:
    """Id of the MLflow run if the workspace has this very training and it has finished; otherwise empty."""
    best = workspace.checkpoints / BEST
    if not (best.exists() and workspace.summary.exists()) or (workspace.checkpoints / LAST).exists():
        return ""
    checkpoint = Checkpoint.load(best)
    of = (checkpoint.delta_table_id, checkpoint.delta_version)
    was, now = (
        {**one, "table": place}
        for one, place in (
            (checkpoint.settings["training"], of),
            (asdict(settings.training), (table.card.delta_table_id, table.card.delta_version)),
        )
    )
    summary = json.loads(workspace.summary.read_text(encoding="utf-8"))
    # The summary is written when all is measured.
    ended = summary.get("training", {}).get("run_id") == checkpoint.run_id
    return checkpoint.run_id if ended and not changes_between(was, now) else ""


def is_registered(workspace: Workspace) -> bool:
    return "registry" in json.loads(workspace.summary.read_text(encoding="utf-8"))
