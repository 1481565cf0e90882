"""The manifest of a source with one folder per class: single-label colour images, for pre-training and other tasks.

daisy/*.jpg, rose/*.jpg                     split by a hash of the path
train/daisy/*.jpg, val/daisy/*.jpg, ...     the folders' own train, val (or valid, validation) and test
"""

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.storage import IMAGE_FILES, list_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.split import assign_split

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_class_folder(source: UPath, settings: Etl) -> Manifest:
    """Locates the images without opening any; the findings are the sorted classes, and each image has one of them.

    Each image counts as its own patient, because nothing says which images belong together. Raises InputError if an
    image is not in a class folder or there are fewer than two classes.
    """
    files = list_files(source, IMAGE_FILES)
    paths = pd.Series(files.index, dtype=str)
    parts = paths.str.split("/")
    has_splits = len(paths) > 0 and parts.str[0].isin(SPLIT_FOLDERS).all()
    depth = 1 if has_splits else 0
    outside = paths[parts.str.len() < depth + 2]
    if len(outside):
        raise InputError(
            f"{source / outside.iloc[0]} is not in a class folder, expected CLASS/image or SPLIT/CLASS/image below "
            f"{source}: move it, or choose another --etl.format"
        )
    classes = sorted(parts.str[depth].unique())
    if len(classes) < 2:
        raise InputError(f"{source} holds {len(paths)} images in {len(classes)} classes, expected at least two classes")
    unknown = pd.Series("", paths.index)
    rows = build_rows(
        source,
        images=paths,
        patients=paths,
        follow_up=unknown,
        age=unknown,
        sex=unknown,
        view=unknown,
        findings=list(np.eye(len(classes), dtype=np.float32)[parts.str[depth].map(classes.index)]),
    )
    own = parts.str[0].map(SPLIT_FOLDERS) if has_splits else None
    return assemble(assign_split(rows, settings, own), files, classes, [], f"images below {source}", channels=3)
