"""Keeps the Delta table small: joins small files, and removes files of versions that nothing needs.

    python jobs/maintain.py                                 keeps a week of versions
    python jobs/maintain.py --retention_hours 0             no grace period: keeps only the versions that are needed

It keeps every version that a model in this workspace's registry or one of its checkpoints was trained on, and those in
--keep_versions. After a kill, run it again to finish.
"""

from conf.arguments import ArgumentParser, load_arguments, with_same_settings
from conf.errors import InputError, run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("etl.table",)


def main() -> None:
    settings, options = load_arguments(
        "Joins small files of the Delta table and removes what no version needs.", "", add_own, reads=READS
    )
    if options.retention_hours < 0:
        raise InputError(f"--retention_hours is {options.retention_hours}, expected 0 or more hours")
    workspace = Workspace.of(settings)
    with quick_imports():
        from etl.card.contact_sheet import choose_films
        from etl.card.page import write_card_page
        from etl.cluster.workers import SparkWorkers
        from etl.contract.storage import ready
        from etl.contract.table import read_card
        from etl.contract.version import keep_card
        from etl.writing.housekeeping import maintain
        from inference.model.registry import trained_versions
        from training.network.checkpoint import BEST, LAST, Checkpoint, State
    tables = workspace.tables(settings.etl.table)
    ready("etl.table", tables[0])
    with workspace.exclusive(), SparkWorkers() as workers:
        keep = set(options.keep_versions)
        card = read_card(tables[0])
        if card and workspace.has_store:
            keep |= trained_versions(workspace, card.delta_table_id)
        for kind, name in ((Checkpoint, BEST), (State, LAST)):
            if card and (workspace.checkpoints / name).exists():
                trained = kind.load(workspace.checkpoints / name)
                keep |= {trained.delta_version} if trained.delta_table_id == card.delta_table_id else set()
        done = maintain(tables, settings.etl, keep, options.retention_hours, workers)
        keep_card(done.card, workspace)
        sheet = choose_films(done.card, done.rows)
        write_card_page(workspace.card_page, done.card, done.rows, done.quarantine, sheet)
    kept = ", ".join(str(version) for version in sorted(keep | {done.card.delta_version}))
    print(f"{done.joined} small files joined into {done.into}, {done.removed} files removed; versions kept: {kept}")
    print("Next: " + with_same_settings("spark-submit etl/preprocess.py"))


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--retention_hours",
        type=int,
        default=168,
        help="keep every version that was the newest within the last N hours, because others may be reading it",
    )
    parser.add_argument(
        "--keep_versions",
        type=list[int],
        default=[],
        help="keep these versions too, beside those that a registered model or a checkpoint was trained on",
    )


if __name__ == "__main__":
    run_command(main)
