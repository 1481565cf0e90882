"""Which reader makes the manifest of which source."""

from pathlib import Path

from conf.errors import InputError
from conf.settings import Etl
from etl.chexpert import read_chexpert
from etl.label_table import read_label_table
from etl.manifest import Manifest
from etl.nih import read_nih

READERS = {"nih": read_nih, "chexpert": read_chexpert, "csv": read_label_table}


def read_manifest(source: Path, settings: Etl) -> Manifest:
    """The manifest of `source` in the format settings.format; opens no image.

    Raises InputError for a missing folder, and whatever the format's reader finds wrong.
    """
    if not source.is_dir():
        raise InputError(f"no source folder at {source}: give it with --etl.source (see README, real radiographs)")
    return READERS[settings.format](source, settings)
