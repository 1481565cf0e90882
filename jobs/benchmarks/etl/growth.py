"""Measures whether the ETL keeps its speed and memory with more images and more tasks, as ratios of one run.

    python -m jobs.benchmarks.etl.growth --images DIR      1,000, 5,000 and 20,000 images; 1, 2 and 4 tasks

DIR is as for jobs.benchmarks.etl.throughput. The speed of the machine itself varies, so a plain loop of as many
processes follows each measurement. Needs about 8 GB of disk, and about ten minutes on two cores.
"""

import argparse
import resource
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from jobs.benchmarks.etl.throughput import measure_plain, measure_spark, repeated

# (images, tasks)
MEASUREMENTS = [(2_000, 1), (2_000, 2), (2_000, 4), (1_000, 2), (5_000, 2), (20_000, 2)]
NUM_PLAIN = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of PNGs")
    folder_of_images = parser.parse_args().images
    table = Table("images", "tasks", "images/s", "to plain loop", "peak MB of a worker", "of the driver so far")
    for num_images, tasks in MEASUREMENTS:
        with tempfile.TemporaryDirectory(dir=".", prefix=".benchmark-") as folder:
            spark = measure_spark(repeated(folder_of_images, num_images), tasks, f"{folder}/spark")
            plain = measure_plain(repeated(folder_of_images, NUM_PLAIN), tasks, f"{folder}/plain")
        rate, driver_mb = spark["spark_images_per_s"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        ratio = rate / plain["plain_images_per_s"]
        cells = (f"{num_images:,}", str(tasks), f"{rate:.0f}", f"{ratio:.2f}")
        table.add_row(*cells, f"{spark['spark_worker_peak_mb']:.0f}", f"{driver_mb:.0f}")
    Console().print(table)


if __name__ == "__main__":
    run_command(main)
