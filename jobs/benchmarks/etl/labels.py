"""Measures the time and memory that the driver needs to plan published collections from their real label files.

    python -m jobs.benchmarks.etl.labels --labels DIR     torchxrayvision/data of the unpacked wheel 1.5.7

Makes an empty file for every listed film in a temporary folder, plans each collection in a process of its own, and
prints images, findings, seconds and megabytes as a table.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command

PLAN = """
import json, resource, sys, time
from conf.settings import Etl
from etl.contract.storage import locate
from etl.sources.read import read_manifest
from etl.writing.update import plan_update
started, settings = time.perf_counter(), Etl(format=sys.argv[1])
manifest = read_manifest(locate(sys.argv[2]), settings)
plan_update(manifest, None, settings)
peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([len(manifest.images), len(manifest.findings), time.perf_counter() - started, peak_mb]))
"""
# etl.format -> file of the wheel, its name in the source, the column that names the film, and the film of a name.
COLLECTIONS = {
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", "", "ImageID", "0/{}"),
    "vindr": ("vinbigdata-train.csv.gz", "train.csv.gz", "image_id", "train/{}.png"),
    "rsna": ("kaggle_stage_2_train_labels.csv.zip", "stage_2_train_labels.csv", "patientId", "films/{}.png"),
    "siim": ("siim-pneumothorax-train-rle.csv.gz", "", "ImageId", "films/{}.png"),
    "experts": ("google2019_nih-chest-xray-labels.csv.gz", "", "Image Index", "images/{}"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="folder with the label files of the wheel")
    labels = parser.parse_args().labels.absolute()
    table = Table()
    for column in ("format", "images", "findings", "seconds", "peak MB"):
        table.add_column(column, justify="left" if column == "format" else "right")
    for form, (packed, name, column, film) in COLLECTIONS.items():
        if not (labels / packed).is_file():
            raise InputError(f"{labels} has no {packed}: unpack the wheel of torchxrayvision 1.5.7 and give its data/")
        with tempfile.TemporaryDirectory() as folder:
            make_source(Path(folder), labels / packed, name, column, film)
            done = subprocess.run(
                [sys.executable, "-c", PLAN, form, folder], check=True, capture_output=True, text=True
            )
        images, findings, seconds, peak_mb = json.loads(done.stdout)
        table.add_row(form, f"{images:,}", str(findings), f"{seconds:.0f}", f"{peak_mb:.0f}")
    Console().print(table)


def make_source(folder: Path, packed: Path, name: str, column: str, film: str) -> None:
    """Puts the table into the folder, and an empty file for each of its films."""
    # Here and not above: pandas takes half a second, which --help need not wait for.
    import pandas as pd

    if packed.suffix == ".zip":
        zipfile.ZipFile(packed).extract(name, folder)
        names = pd.read_csv(folder / name, usecols=[column])[column]
    else:
        shutil.copy(packed, folder / (name or packed.name))
        with gzip.open(packed) as content:
            names = pd.read_csv(content, usecols=[column])[column]
    for place in {film.format(name) for name in names}:
        file = folder / place
        file.parent.mkdir(exist_ok=True)
        file.touch()


if __name__ == "__main__":
    run_command(main)
