"""The manifest of VinDr-CXR (Nguyen et al., "VinDr-CXR", Scientific Data 9:429, 2022), in either of its releases.

PhysioNet 1.0.0: annotations/image_labels_train.csv, image_labels_test.csv    a row per film and reader, a column per
                                                                              finding; the test set has one row per film
                 annotations/annotations_train.csv, annotations_test.csv      boxes, a row per box
                 train/ID.dicom, test/ID.dicom
Kaggle (VinBigData): train.csv       a row per film, reader and box, also for `No finding`
                     train/ID.dicom; competition's test films have no labels
A table may have .gz behind its name. train_meta.csv (image_id, dim0, dim1: height and width of the original film) comes
with copies of Kaggle's films as PNG or JPEG.

Boxes are in pixels of the original film. Its size is that in train_meta.csv, or else that of the DICOM file; without
either, the boxes of the film are left out and counted. All films are PA views, as the publication says; nothing names
patients.
"""

import numpy as np
import pandas as pd
from upath import UPath

from conf.errors import InputError
from conf.settings import Etl
from conf.words import counted
from etl.cluster.workers import SparkWorkers
from etl.contract.images.orientation import UPRIGHT
from etl.contract.listing import list_files
from etl.sources.files import match_files
from etl.sources.manifest import Manifest, assemble, build_rows
from etl.sources.published.boxes import place_box
from etl.sources.published.film_tags import read_film_tags
from etl.sources.published.readers import RULES, describe_agreement, join_readers
from etl.sources.published.tables import drop_repeats, leave_out, no_split, optional_table, some
from etl.sources.published.vindr_tables import CONSENSUS, read_votes
from etl.sources.split import NO_PATIENTS, assign_split
from etl.sources.tables.file import read_table

SIZES = "train_meta.csv"
"""sizes of the original films, beside copies of them"""


def read_vindr(source: UPath, settings: Etl, workers: SparkWorkers) -> Manifest:
    """Reads the tables and the DICOM tags of the films, and joins the readers as settings.labels.readers says.

    A film of which a finding is called present keeps the boxes of all readers who drew it; boxes of findings that the
    joined labels do not have are left out and counted. With the name of a reader, films that this one has not read are
    left out with the reason. Raises InputError for missing or damaged tables, a label that is not in the release, a box
    that lies outside of its film, rows of one reader that differ, an unknown reader, or no film at all.
    """
    votes, boxes, tables, split, strange, notes = read_votes(source)
    notes += describe_agreement(votes)
    images = pd.Series(votes.index.get_level_values(0).unique(), dtype=str)
    votes, boxes = _choose_readers(votes, boxes, rule := settings.labels.readers)
    joined = join_readers(votes, rule if rule in RULES else "majority").reindex(images)
    said = votes.notna().groupby(level=0).any().reindex(images, fill_value=False)
    if ties := int((joined.isna() & said).sum().sum()):
        notes.append(f"{counted(ties, 'label')} on which just half of the readers agree, so that is unknown")
    files = list_files(source)
    found = match_files(images, files, tables[0])
    tags, more = read_film_tags(found, files, workers)
    empty = pd.Series("", images.index)
    rows = build_rows(
        tables[0],
        images=images,
        patients=images,
        follow_up=empty,
        age=tags.age,
        sex=tags.sex,
        view=tags["view"].where(tags["view"] != "", "PA"),
        findings=list(joined.to_numpy(np.float32)),
        strange_labels=images.map(strange).astype(object).where(images.isin(strange.keys()), None),
    )
    findings = list(joined.columns)
    there = boxes[boxes.image.isin(images[found.notna()])]
    rows["boxes"], dropped = _place(there, rows, joined, _find_sizes(source, images, tags, tables), settings)
    own = images.map(split) if split and settings.split == "source" else None
    rows = assign_split(rows, settings, own)
    rows["file"] = found
    notes += [*([] if split else no_split(settings)), NO_PATIENTS, *more, *dropped]
    searched = f"films of {tables[0].name} is below {source}: check --etl.source and --etl.format"
    manifest = assemble(rows, files, findings, tables, searched, left_out="not listed in the tables", notes=notes)
    unread = images[~images.isin(votes.index.get_level_values(0))]
    return leave_out(manifest, pd.Series(f"not read by {rule}", unread, dtype=object))


def _choose_readers(votes: pd.DataFrame, boxes: pd.DataFrame, rule: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the chosen reader says, beside the consensus; all of it if `rule` joins the readers."""
    if rule in RULES:
        return votes, boxes
    readers = votes.index.get_level_values(1)
    if rule not in readers:
        raise InputError(
            f"etl.labels.readers is {rule!r}, expected {', '.join(RULES)} or one of the readers "
            f"{some(sorted(set(readers) - {CONSENSUS}), 20)}"
        )
    return votes[readers.isin([rule, CONSENSUS])], boxes[boxes.reader.isin([rule, CONSENSUS])]


def _find_sizes(source: UPath, images: pd.Series, tags: pd.DataFrame, tables: list[UPath]) -> pd.DataFrame:
    """Width and height of each original film, pixels, by its image; 0 if nothing says it, or if it is shown turned."""
    sizes = tags[["width_px", "height_px"]].where(tags.orientation == UPRIGHT, 0).set_axis(images)
    if path := optional_table(source, SIZES):
        tables.append(path)
        table = read_table(path, ["image_id", "dim0", "dim1"])
        upright = images[(tags.orientation == UPRIGHT).to_numpy()]
        table, _ = drop_repeats(table[table["image_id"].isin(upright)], path, "image_id")
        wrong = table[~(table["dim0"] + "," + table["dim1"]).str.fullmatch(r"[1-9]\d{0,4},[1-9]\d{0,4}")]
        if len(wrong):
            raise InputError(
                f"{path} line {wrong.index[0] + 2}: dim0, dim1 are {wrong['dim0'].iloc[0]!r} and "
                f"{wrong['dim1'].iloc[0]!r}, expected height and width in pixels: fix the row, or remove the file"
            )
        sizes.loc[table["image_id"], ["height_px", "width_px"]] = table[["dim0", "dim1"]].to_numpy(int)
    return sizes


def _place(
    boxes: pd.DataFrame, rows: pd.DataFrame, joined: pd.DataFrame, sizes: pd.DataFrame, settings: Etl
) -> tuple[pd.Series, list[str]]:
    """The boxes of each row in the contract's format, and sentences on those that are left out."""
    position = {name: index for index, name in enumerate(joined.columns)}
    present = {image: set(joined.columns[row == 1]) for image, row in zip(joined.index, joined.to_numpy(), strict=True)}
    size_of = dict(zip(sizes.index, sizes.to_numpy(int).tolist(), strict=True))
    placed: dict[str, list[float]] = {}
    unplaced, unsaid = {}, 0
    for box in boxes.itertuples(index=False):
        width, height = size_of[box.image]
        if box.finding not in present[box.image]:
            unsaid += 1
        elif not width:
            unplaced[box.image] = unplaced.get(box.image, 0) + 1
        else:
            shares = place_box(box.path, box.line, box.box, width, height, settings.square)
            placed.setdefault(box.image, []).extend([float(position[box.finding]), *shares])
    notes = []
    if unsaid:
        notes.append(f"{counted(unsaid, 'box', 'boxes')} of findings that the joined labels do not have left out")
    if unplaced:
        notes.append(
            f"{counted(sum(unplaced.values()), 'box', 'boxes')} of {counted(len(unplaced), 'film')} left out, because "
            "the size of the original film is not known or it is shown turned: the size is read from the DICOM files "
            f"or from {SIZES} (image_id, dim0, dim1)"
        )
    return pd.Series([placed.get(image, []) for image in rows.image_id], rows.index), notes
