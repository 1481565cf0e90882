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
from inference.model.properties import Properties

PIXELS, PATIENT = "the training has seen the same pixels", "the training has seen this patient"
FITTED = "the recalibration was fitted to this patient"
SHOWN = 3


def find_seen(
    properties: Properties, trained: TableVersion, films: TableVersion, rows: pd.DataFrame, options: Validation
) -> pd.Series:
    """Why a film must not be tested, None for the others; indexed as `rows`.

    trained: the table's version that the model was trained on. Its train and val splits were seen, and those of the
    versions of this table, or of the films' table, on which the weights were trained that the training started from.
    films, rows: the table of the films, and its rows that are to be tested.
    A film is the same if all its stored pixels are the same: another resolution or contrast of it is not found. A
    patient who has such a film is the same person, so that all of the patient's films count. Patients of the same name
    are the same people if both tables have one source, or if one of them has the same film in both.
    Raises InputError if both tables name patients alike and nothing tells whether they are the same people.
    """
    reasons = pd.Series(None, rows.index, dtype=object)
    reasons[rows.patient_id.map(lambda patient: was_fitted(properties, films.card, patient))] = FITTED
    for table in (trained, *_ancestors(properties, trained, films)):
        seen = _compare(table, films, rows, options)
        reasons = seen.where(seen.notna(), reasons)
    return reasons


def _ancestors(properties: Properties, trained: TableVersion, films: TableVersion) -> list[TableVersion]:
    """The versions of either table on which weights were trained that the training started from."""
    found = []
    for one in properties.ancestors:
        for table in (trained, films):
            if one.get("delta_table_id") == table.card.delta_table_id:
                found.append(
                    table.trained_on(one["delta_table_id"], one["delta_version"], "a model that it started from")
                )
                break
    return found


def unchecked_ancestors(properties: Properties, trained: TableVersion, films: TableVersion) -> list[str]:
    """The sources of starting weights, of other tables or of none, whose training films are not known."""
    known = {trained.card.delta_table_id, films.card.delta_table_id}
    return [one["source"] for one in properties.ancestors if one.get("delta_table_id") not in known]


def was_fitted(properties: Properties, films: Card, patient: str) -> bool:
    """Whether the model, or one that it comes from, was recalibrated on this patient of the films' table."""
    fit = properties.recalibrated
    while fit:
        if fit["delta_table_id"] == films.delta_table_id and share_of(patient, fit["seed"]) < fit["fit_fraction"]:
            return True
        fit = fit["earlier"]
    return False


def share_of(patient: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed alone; a recalibration is fitted to the lowest."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{patient}".encode()).digest()[:8]) / 2**64


def _compare(table: TableVersion, films: TableVersion, rows: pd.DataFrame, options: Validation) -> pd.Series:
    """Why a film must not be tested by a model that was trained on this version of a table; None for the others."""
    seen = table.rows("train", "val")
    hashes = hashes_of(films, table.card, rows)
    patient_of = dict(zip(hashes_of(table, films.card, seen), seen.patient_id, strict=True))
    same_pixels = hashes.isin(patient_of.keys())
    is_seen = rows.patient_id.isin(set(rows.patient_id[same_pixels]))
    alike = rows.patient_id.isin(set(seen.patient_id))
    shown = bool((hashes[same_pixels].map(patient_of) == rows.patient_id[same_pixels]).any())
    if alike.any() and (shown or _same_people(table.card, films.card, rows[alike], options)):
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
    why = "; ".join(f"{number:,}: {reason}" for reason, number in seen.reason.value_counts().items())
    raise InputError(
        f"the model has seen {counted(len(people), 'patient')} of these films, such as {', '.join(people[:SHOWN])} "
        f"({counted(len(seen), 'film')}; {why}): a test on them would flatter it. --validation.seen leave_out tests it "
        "on the others and lists these"
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
    if one_table or one_salt or one_source:
        return True
    if options.same_patients == "ask":
        names = alike.patient_id.unique()
        raise InputError(
            f"{counted(len(names), 'patient')} of the films, such as {', '.join(names[:SHOWN])}, have the names of "
            "patients of the model's training, and nothing tells whether they are the same people: answer by "
            "--validation.same_patients yes, or no if both hospitals only number their patients alike"
        )
    return options.same_patients == "yes"


def describe_check(trained: TableVersion, films: TableVersion, properties: Properties, options: Validation) -> str:
    """What the films were compared with, for people who read the results."""
    said = ["no film with the same pixels as one of the training"]
    salts = {trained.card.identities, films.card.identities}
    if len(salts) > 1:
        said.append("patients not compared, because their names are pseudonyms of different keys")
    elif options.same_patients == "no":
        said.append("patients of the same names declared to be other people")
    else:
        said.append("no patient of the training")
    if origins := unchecked_ancestors(properties, trained, films):
        said.append(f"films of the weights that it started from ({', '.join(origins)}) not known")
    return "; ".join(said)
