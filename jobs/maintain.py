"""Keeps the Delta table small: joins small files, removes files of versions that nobody needs.

    python jobs/maintain.py                                 keeps a week of versions
    python jobs/maintain.py --jobs.retention_hours 0        nobody reads the table at the moment

Every version stays that a model in this workspace's registry or its last checkpoint was trained on, and those in
jobs.keep_versions. What a kill leaves half-done is repaired by running it again.
"""

from conf.errors import run_command
from conf.settings import load_settings, with_same_arguments
from conf.workspace import Workspace
from etl.card.contact_sheet import choose_films
from etl.card.page import write_card_page
from etl.cluster.workers import SparkWorkers
from etl.contract.table import read_card
from etl.writing.maintain import maintain
from inference.model.registry import trained_versions
from training.network.checkpoint import BEST, Checkpoint


def main() -> None:
    settings = load_settings("Joins small files of the Delta table and removes what no version needs.")
    workspace = Workspace.at(settings.workspace, settings.tracking_server)
    tables = workspace.tables(settings.etl.table)
    with workspace.exclusive(), SparkWorkers() as workers:
        keep = set(settings.jobs.keep_versions)
        card = read_card(tables[0])
        if card and workspace.has_store:
            keep |= trained_versions(workspace, card.delta_table_id)
        if card and (workspace.checkpoints / BEST).exists():
            checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
            keep |= {checkpoint.delta_version} if checkpoint.delta_table_id == card.delta_table_id else set()
        done = maintain(tables, settings.etl, keep, settings.jobs.retention_hours, workers)
        done.card.write(workspace.card)
        sheet = choose_films(done.card, done.rows)
        write_card_page(workspace.card_page, done.card, done.rows, done.quarantine, sheet)
    kept = ", ".join(str(version) for version in sorted(keep | {done.card.delta_version}))
    print(f"{done.joined} small files joined into {done.into}, {done.removed} files removed; versions kept: {kept}")
    print("Next: " + with_same_arguments("spark-submit etl/preprocess.py"))


if __name__ == "__main__":
    run_command(main)
