"""How many cores for how long, and how many bytes: the measured rates of docs/benchmarks.md, for any number of films.

    python -m jobs.benchmarks.capacity                              NIH's 112,120 films, and 10 million
    python -m jobs.benchmarks.capacity --images 500000 --sizes_px 512 --epochs 20

It measures nothing. Each rate is that of one core of the machine that measured it, and an option replaces it by your
own. Prints core-hours, bytes and network for each stage.
"""

import argparse

from rich.console import Console
from rich.table import Table

from conf.errors import run_command

# Films of 1024x1024 pixels, as 8-bit PNG; docs/benchmarks.md, the tables `growth`, `step` and `Batch on Spark`.
ETL, TRAINING, SCORED_FILES, SCORED_ROWS = 100.0, 4.4, 165.0, 2100.0
"""images/s of one core; training: DenseNet-121 at 224 pixels in fp32"""
RATES = ("etl", "training", "files", "rows")
"""options that are images/s"""
DRIVER_MB, DRIVER_KB_PER_IMAGE = 210, 1.5
"""memory of the ETL's driver, which holds a row without pixels of each image"""
SOURCE_KB = 380
"""bytes of a source film, ChestX-ray14's mean"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[112_120, 10_000_000], help="numbers of films")
    parser.add_argument("--sizes_px", type=int, nargs="+", default=[256, 512], help="stored sides (default 256 512)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a training (default 10)")
    parser.add_argument("--etl", type=float, default=ETL, help=f"images/s of a core in the ETL (default {ETL:g})")
    parser.add_argument("--training", type=float, default=TRAINING, help=f"images/s of a device (default {TRAINING:g})")
    parser.add_argument("--files", type=float, default=SCORED_FILES, help=f"files/s scored (default {SCORED_FILES:g})")
    parser.add_argument("--rows", type=float, default=SCORED_ROWS, help=f"rows/s scored (default {SCORED_ROWS:g})")
    arguments = parser.parse_args()
    for number in arguments.images:
        Console().print(plan(number, arguments))


def plan(images: int, arguments: argparse.Namespace) -> Table:
    """One table, for so many films."""
    table = Table("stage", "core- or device-hours", "reads", "writes", title=f"{images:,} films", title_justify="left")
    source, pixels = images * SOURCE_KB * 1e3, [images * side**2 for side in arguments.sizes_px]
    hours = {name: images / getattr(arguments, name) / 3600 for name in RATES}
    table.add_row("ETL", f"{hours['etl']:,.1f}", size(source), size(sum(pixels)))
    trained = f"{hours['training'] * arguments.epochs:,.0f}"
    table.add_row(f"training, {arguments.epochs} epochs", trained, f"{size(pixels[0])} an epoch", "")
    table.add_row("scoring of files", f"{hours['files']:,.1f}", size(source), size(images * 100))
    table.add_row("scoring of the table", f"{hours['rows']:,.2f}", size(pixels[0]), size(images * 100))
    memory = DRIVER_MB * 1e6 + images * DRIVER_KB_PER_IMAGE * 1e3
    table.caption = f"memory of the ETL's driver: {size(memory)}; reading for a device that trains 2,500 images/s: "
    table.caption += f"{size(2500 * arguments.sizes_px[0] ** 2)}/s"
    return table


def size(number: float) -> str:
    """Bytes in the largest fitting unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


if __name__ == "__main__":
    run_command(main)
