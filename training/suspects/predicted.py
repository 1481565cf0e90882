"""A table's labels beside what trainings predict for images that they have not learned from."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit

from conf.errors import InputError
from conf.words import counted
from conf.workspace import Workspace
from etl.contract.schema import SPLITS
from etl.contract.version import TableVersion
from training.ensembles.members import PREDICTED, Member, read_member, table_of
from training.network.checkpoint import BEST, Checkpoint


@dataclass(frozen=True)
class Predicted:
    """The images of a table that a training has predicted; all arrays are in the order of `rows`."""

    rows: pd.DataFrame
    """of the table, as TableVersion.rows gives them, sorted by image"""
    findings: list[str]
    labels: np.ndarray
    """(images, findings) float32: 1 present, 0 absent, NaN unknown, as the table has them"""
    probabilities: np.ndarray
    """(images, findings) float64, 0..1, calibrated; if several trainings predict an image, their mean"""
    by: np.ndarray
    """(images,) int: the first training that predicts the image"""
    notes: list[str]
    """sentences on images that are not judged, and on labels that have changed"""


def read_predicted(table: TableVersion, folders: list[str]) -> tuple[Predicted, list[Workspace]]:
    """The table's images that the trainings in `folders` predict, and these trainings' workspaces.

    A training predicts its validation and test split; it may have another table, or an older version of this one, of
    the same images. It does not judge patients on whom its starting weights were trained. Raises InputError for a
    folder that holds no finished training, for one that is named twice, for other findings, for images whose patients
    or pixels differ there, and if no image is left.
    """
    workspaces = [Workspace.at(folder, setting="label_quality.trainings") for folder in folders]
    places = [workspace.root.resolve() for workspace in workspaces]
    if len(set(places)) < len(places):
        raise InputError(f"label_quality.trainings is {folders}, expected different workspaces: name each once")
    rows = table.rows(*SPLITS).sort_values("image_id", ignore_index=True)
    findings, labels = table.card.findings, np.stack(rows["findings"].to_list()).astype(np.float32)
    place_of, owner_of = pd.Series(rows.index, rows["image_id"]), rows.set_index("image_id")["patient_id"]
    sums, votes = np.zeros(labels.shape), np.zeros(len(rows), int)
    by, changed, gone = np.full(len(rows), -1), np.zeros(labels.shape, bool), 0
    notes: list[str] = []
    for number, workspace in enumerate(workspaces):
        member = read_member(workspace)
        columns = _columns_of(member, findings)
        _check_patients(member, owner_of)
        _check_pixels(member, table, rows)
        seen, unknown = _seen_before(member, table)
        notes += unknown
        for split in PREDICTED:
            part = member.splits[split]
            owners = owner_of.reindex(part.image_ids)
            gone += int(owners.isna().sum())
            known = (owners.notna() & ~owners.isin(seen)).to_numpy()
            places = place_of[part.image_ids[known]].to_numpy()
            then, now = part.labels[known][:, columns], labels[places]
            changed[places] |= (then != now) & ~(np.isnan(then) & np.isnan(now))
            sums[places] += expit(part.logits[known][:, columns])
            votes[places] += 1
            by[places] = np.where(by[places] < 0, number, by[places])
    there = votes > 0
    if not there.any():
        raise InputError(
            f"{', '.join(folders)} predict none of the images of {table.shards}: name trainings on a table of the same "
            "images by --label_quality.trainings"
        )
    kept = rows[there].reset_index(drop=True)
    probabilities = sums[there] / votes[there][:, None]
    notes += _describe(rows, there, gone, int(changed.sum()))
    return Predicted(kept, findings, labels[there], probabilities, by[there], notes), workspaces


def _columns_of(member: Member, findings: list[str]) -> list[int]:
    """Where the table's findings are in the training's."""
    if set(member.findings) != set(findings):
        raise InputError(
            f"{member.workspace.root} was trained on the findings {', '.join(member.findings)}, the table has "
            f"{', '.join(findings)}: leave this training out, or train again on a table with these findings"
        )
    return [member.findings.index(finding) for finding in findings]


def _check_patients(member: Member, owner_of: pd.Series) -> None:
    """Raises InputError if an image has another patient in the training's table: then it is another image.

    owner_of: patient of each image of the table.
    """
    ours = owner_of.reindex(member.splits["test"].image_ids)
    other = (ours.notna() & (ours != member.patients)).to_numpy()
    if other.any():
        raise InputError(
            f"image {ours.index[other][0]} is of patient {ours[other].iloc[0]} in the table, and of "
            f"{member.patients[other][0]} in the table of {member.workspace.root}: these are other images, so leave "
            "this training out"
        )


def _check_pixels(member: Member, table: TableVersion, rows: pd.DataFrame) -> None:
    """Raises InputError if an image has other pixels in the training's table: many sources name images alike.

    Tables with other sizes cannot be compared, nor one that is gone.
    """
    if member.trained_on["delta_table_id"] == table.card.delta_table_id:
        return
    try:
        theirs = table_of(member)
        if max(theirs.card.sizes_px) != max(table.card.sizes_px):
            return
        hashes = theirs.rows(*SPLITS).set_index("image_id")["pixel_hash"]
    except (InputError, KeyError):
        return
    other = rows["image_id"].map(hashes)
    differ = other.notna() & rows["pixel_hash"].notna() & (other != rows["pixel_hash"])
    if differ.any():
        raise InputError(
            f"{counted(int(differ.sum()), 'image')}, such as {rows['image_id'][differ].iloc[0]}, have other pixels in "
            f"the table of {member.workspace.root}: these are other images of the same names; leave this training out"
        )


def _seen_before(member: Member, table: TableVersion) -> tuple[set[str], list[str]]:
    """Patients on whom the weights were trained that the training started from, and a sentence on unknown ones.

    Weights of no table, such as ImageNet's, have seen none of them.
    """
    best = member.workspace.checkpoints / BEST
    seen, notes = set(), []
    for one in Checkpoint.load(best).ancestors if best.exists() else []:
        if not (of := one.get("delta_table_id")):
            continue
        try:
            own = table if of == table.card.delta_table_id else TableVersion.of(member.workspace)
            seen |= set(own.trained_on(of, one["delta_version"], one["source"]).rows("train", "val")["patient_id"])
        except InputError:
            notes.append(
                f"{member.workspace.root} started from the weights of {one['source']}, whose table cannot be asked for "
                "its patients: labels that those weights have learned may be judged"
            )
    return seen, notes


def _describe(rows: pd.DataFrame, there: np.ndarray, gone: int, changed: int) -> list[str]:
    """Sentences that say which images are not judged, and how many labels have changed."""
    missed = rows["split"][~there].value_counts()
    notes = []
    if len(missed):
        of = ", ".join(f"{missed[split]:,} of {split}" for split in SPLITS if split in missed)
        said = counted(int(missed.sum()), "image is", "images are")
        notes.append(
            f"{said} not judged ({of}), because a model knows the labels that it was trained on: trainings of other "
            "folds predict them (docs/evidence.md)"
        )
    if gone:
        notes.append(f"{counted(gone, 'predicted image is', 'predicted images are')} not in the table, and left out")
    if changed:
        said = counted(changed, "label has", "labels have")
        notes.append(f"{said} changed since these trainings: the table's are judged")
    return notes
