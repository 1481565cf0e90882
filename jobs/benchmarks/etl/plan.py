"""Measures the time and memory that the driver needs to plan a dataset: manifest, split, and rows of each file.

    python -m jobs.benchmarks.etl.plan --source DIR        NIH's label file and lists; images need not be there

Makes an empty file for every listed image in a temporary folder. Prints seconds and megabytes as JSON.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from conf.errors import InputError, run_command
from conf.settings import Etl
from etl.contract.storage import locate
from etl.sources.published.nih import LABEL_FILES
from etl.sources.read import read_manifest
from etl.sources.tables.file import read_table
from etl.writing.update import plan_update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with NIH's label file and lists")
    source = parser.parse_args().source.absolute()
    labels = sorted(file for pattern in LABEL_FILES for file in source.glob(pattern))
    if len(labels) != 1:
        raise InputError(
            f"{source} should hold one label file {' or '.join(LABEL_FILES)}, found {len(labels)}: change --source"
        )
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder, "images")
        images.mkdir()
        for name in read_table(labels[0], ["Image Index"])["Image Index"]:
            (images / name).touch()
        for file in (*source.glob("*.csv"), *source.glob("*.txt")):
            Path(folder, file.name).symlink_to(file)
        started = time.perf_counter()
        manifest = read_manifest(locate(folder), Etl())
        update = plan_update(manifest, None, Etl())
        seconds = time.perf_counter() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"images": len(manifest.images), "files": len(update.shards)}
    print(json.dumps({**result, "seconds": round(seconds, 1), "peak_mb": round(peak_mb)}, indent=2))


if __name__ == "__main__":
    run_command(main)
