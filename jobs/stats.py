"""Prints what share of the images of each split has each finding, of the table of a workspace.

    python jobs/stats.py                        runs/demo
    python jobs/stats.py --workspace runs/nih --etl.table s3://bucket/nih

The numbers are those of the dataset card (card.html), in the order of the vocabulary.
"""

from conf.arguments import load_arguments
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("etl.table",)


def main() -> None:
    settings, _ = load_arguments("Prints the share of images with each finding.", "", lambda parser: None, reads=READS)
    with quick_imports():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from etl.contract.schema import SPLITS
        from etl.contract.version import TableVersion
    card = TableVersion.of(Workspace.of(settings), elsewhere=settings.etl.table).card
    table = Table("finding", title=Text(f"Percent of the images whose label is known, {card.title}", "table.title"))
    for split in SPLITS:
        table.add_column(split, justify="right")
    table.add_row("images", *(f"{card.images[split]:,}" for split in SPLITS))
    table.add_row("patients", *(f"{card.patients[split]:,}" for split in SPLITS))
    table.add_section()
    for finding in card.findings:
        shares = [card.percentages[split][finding] if card.known[split][finding] else None for split in SPLITS]
        table.add_row(Text(finding), *("-" if share is None else f"{share:.2f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
