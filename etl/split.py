"""Which patient is in which split, and the proof that no patient is in two."""

import hashlib
from pathlib import Path

import pandas as pd

from conf.errors import InputError


def read_list(path: Path) -> set[str]:
    """Image names of an official list: the first word of each line. Raises InputError where that is no file of text."""
    if not path.is_file():
        raise InputError(f"no split list at {path}: expected NIH's {path.name} in the source folder")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no UTF-8 text ({error}), expected one image name a line: download it again"
        ) from error
    return {line.split()[0] for line in lines if line.strip()}


def assign_official(manifest: pd.DataFrame, train_val: set[str], test: set[str], val_fraction: float, seed: int):
    """The official lists, with validation taken from train_val by patient.

    manifest: columns image_id and patient_id. val_fraction: share of the train_val patients, 0..1; chosen by a hash of
    seed and patient, so that a patient stays where he is when others come.
    Returns a Series of train, val, test, and None for an image in neither list, in the manifest's order.
    Raises InputError for a patient (or an image) on both lists.
    """
    in_test = manifest.image_id.isin(test)
    in_train_val = manifest.image_id.isin(train_val)
    both = set(manifest.patient_id[in_test]) & set(manifest.patient_id[in_train_val])
    if both:
        raise InputError(
            f"{len(both)} patients have images in both the train_val and the test list, such as "
            f"{', '.join(sorted(both)[:3])}: a patient may be in one split only, mend the lists"
        )
    validates = _hash_places(manifest.patient_id, seed) < val_fraction
    split = pd.Series(None, index=manifest.index, dtype=object)
    split[in_train_val] = "train"
    split[in_train_val & validates] = "val"
    split[in_test] = "test"
    return split


def assign_hashed(patients: pd.Series, val_fraction: float, test_fraction: float, seed: int) -> pd.Series:
    """train, val or test by a hash of seed and patient: who is in a split stays there when others come.

    test_fraction: share of all patients; val_fraction: share of the others; both 0..1.
    """
    places = _hash_places(patients, seed)
    split = pd.Series("train", index=patients.index)
    split[places < test_fraction + (1 - test_fraction) * val_fraction] = "val"
    split[places < test_fraction] = "test"
    return split


def find_leaks(patients: pd.DataFrame) -> list[str]:
    """Patients with images in more than one split, sorted. patients: columns patient_id and split."""
    splits = patients.drop_duplicates().groupby("patient_id").size()
    return sorted(splits[splits > 1].index)


def _hash_places(patients: pd.Series, seed: int) -> pd.Series:
    """0..1, spread evenly over the patients; the same for a patient whoever else is there."""

    def place(patient: str) -> float:
        digest = hashlib.blake2b(f"{seed}:{patient}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    return patients.map({patient: place(patient) for patient in patients.unique()})
