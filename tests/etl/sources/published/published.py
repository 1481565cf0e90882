"""Toy folders in the layouts of published collections, and their real label files if the machine has them."""

import csv
import io
import os
from pathlib import Path

import pandas as pd
import pytest

from conf.settings import Etl
from etl.sources.manifest import Manifest
from etl.sources.read import read_manifest
from tests.conftest import InlineWorkers

LABEL_FILES = "CHEXSCALE_LABEL_FILES"


def read(folder: Path, form: str, **settings) -> Manifest:
    return read_manifest(folder, Etl(format=form, **settings), InlineWorkers())


def rows_of(manifest: Manifest) -> pd.DataFrame:
    return manifest.images.set_index("image_id")


def labels_of(manifest: Manifest, image: str) -> dict[str, float]:
    return dict(zip(manifest.findings, rows_of(manifest).findings[image].tolist(), strict=True))


def write_table(path: Path, header: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.write_text(text.getvalue())


def touch(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def label_files() -> Path:
    """The real label files, as torchxrayvision's wheel carries them."""
    folder = os.environ.get(LABEL_FILES)
    if not folder:
        pytest.skip(f"{LABEL_FILES} names no folder with the label files of torchxrayvision's wheel")
    return Path(folder)
