"""What a model's training has seen of the films that it is to be tested on: the same pixels, and the same patients."""

import hashlib
from collections.abc import Iterator

import pandas as pd

from conf.errors import InputError
from conf.settings import Validation
from conf.words import counted
from etl.contract.schema import Card, image_column
from etl.contract.table import read_pixels
from etl.contract.version import TableVersion

PIXELS, PATIENT = "the training has seen the same pixels", "the training has seen this patient"
SHOWN = 3


def find_seen(trained: TableVersion, films: TableVersion, rows: pd.DataFrame, options: Validation) -> pd.Series:
    """Why a film must not be tested, None for the others; indexed as `rows`.

    trained: the table's version that the model was trained on; its train and val splits were seen. films, rows: the
    table of the films, and its rows that are to be tested. A film is the same if all its stored pixels are the same:
    another resolution or contrast of it is not found. A patient who has such a film is the same person, so that all of
    the patient's films count. Patients of the same name are the same people if both tables have one source, or if one
    of them has the same film in both.
    Raises InputError if both tables name patients alike and nothing tells whether they are the same people.
    """
    seen = trained.rows("train", "val")
    hashes = hashes_of(films, trained.card, rows)
    patient_of = dict(zip(hashes_of(trained, films.card, seen), seen.patient_id, strict=True))
    same_pixels = hashes.isin(patient_of.keys())
    is_seen = rows.patient_id.isin(set(rows.patient_id[same_pixels]))
    alike = rows.patient_id.isin(set(seen.patient_id))
    shown = bool((hashes[same_pixels].map(patient_of) == rows.patient_id[same_pixels]).any())
    if alike.any() and (shown or _same_people(trained.card, films.card, rows[alike], options)):
        is_seen |= alike
    reasons = pd.Series(None, rows.index, dtype=object)
    reasons[is_seen] = PATIENT
    reasons[same_pixels] = PIXELS
    return reasons


def refuse_seen(seen: pd.DataFrame) -> None:
    """Raises InputError if there is any film. seen: rows of the films, with their `reason`."""
    if seen.empty:
        return
    people = seen.patient_id.unique()
    pixels = int((seen.reason == PIXELS).sum())
    raise InputError(
        f"the model's training has seen {counted(len(people), 'patient')} of these films, such as "
        f"{', '.join(people[:SHOWN])} ({counted(len(seen), 'film')}, {pixels:,} of them with the same pixels): a test "
        "on them would flatter the model. --validation.seen leave_out tests it on the others and lists these"
    )


def hashes_of(table: TableVersion, other: Card, rows: pd.DataFrame) -> pd.Series:
    """A hash of each film's pixels that can be compared with the other table's; indexed as `rows`.

    Both tables keep the hash of their largest squares. If these have other sides, the largest common side is read.
    """
    own, others = table.card.sizes_px, other.sizes_px
    if max(own) == max(others):
        return rows.pixel_hash
    column = image_column(max(set(own) & set(others)))
    hashes = dict(_hash_pixels(rows, column))
    return rows.image_id.map(hashes)


def _hash_pixels(rows: pd.DataFrame, column: str) -> Iterator[tuple[str, str]]:
    """Image and hash, of one file after the other, because all pixels would not fit into memory."""
    for _, of_file in rows.groupby("file"):
        for image_id, pixels in read_pixels(of_file, column).items():
            yield image_id, hashlib.sha256(pixels).hexdigest()


def _same_people(trained: Card, films: Card, alike: pd.DataFrame, options: Validation) -> bool:
    """Whether patients whose names are in both tables are the same people."""
    one_table = trained.delta_table_id == films.delta_table_id
    one_salt = trained.identities == films.identities != ""
    one_source = bool(set(trained.source_sha256.values()) & set(films.source_sha256.values()))
    if options.same_patients == "ask" and not (one_table or one_salt or one_source):
        names = alike.patient_id.unique()
        raise InputError(
            f"{counted(len(names), 'patient')} of the films, such as {', '.join(names[:SHOWN])}, have the names of "
            "patients of the model's training, and nothing tells whether they are the same people: answer by "
            "--validation.same_patients yes, or no if both hospitals only number their patients alike"
        )
    return options.same_patients != "no"
