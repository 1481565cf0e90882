"""Makes one checkpoint of an ensemble's members, which inference/register.py exports as one graph."""

import numpy as np

from conf.errors import InputError
from conf.programs import versions_of
from conf.settings import Settings
from etl.contract.schema import Card
from training.ensembles.members import ENSEMBLE, Member
from training.network.checkpoint import BEST, Checkpoint
from training.record.tracking import TrackedRun

MOST_APART = 1e-3
"""difference of mean AUROC on the validation split, of a checkpoint and its evaluation: devices round differently"""


def read_checkpoints(members: list[Member]) -> list[Checkpoint]:
    """The members' checkpoints. Raises InputError, with the reason, if no graph can be made of all of them."""
    read = []
    for member in members:
        path = member.workspace.checkpoints / BEST
        if not path.exists():
            raise InputError(f"{member.workspace.root} has no checkpoint: run its training again, or leave it out")
        checkpoint = Checkpoint.load(path)
        if checkpoint.members:
            raise InputError(f"{member.workspace.root} is an ensemble itself: name its members instead")
        measured = np.nan if member.val_auroc is None else member.val_auroc
        if not np.isclose(measured, checkpoint.val_auroc, rtol=0, atol=MOST_APART, equal_nan=True):
            raise InputError(
                f"{path} is of another training than the evaluation beside it, with a mean AUROC on the validation "
                f"split of {checkpoint.val_auroc:.4f} and {measured:.4f}: run that training again"
            )
        read.append(checkpoint)
    kinds = {(one.size_px, one.channels) for one in read if one.size_px}
    if not kinds:
        raise InputError("no member looks at a film: add a network of films")
    if len(kinds) > 1:
        named = " and ".join(
            f"{size_px} px {'grey' if channels == 1 else 'in colour'}" for size_px, channels in sorted(kinds)
        )
        raise InputError(f"the members take different images, {named}: train all at the size of one")
    return read


def join(
    checkpoints: list[Checkpoint],
    members: list[Member],
    votes: np.ndarray,
    settings: Settings,
    card: Card,
    run: TrackedRun,
    val_auroc: float,
) -> Checkpoint:
    """One checkpoint of all members. checkpoints: from read_checkpoints. votes: (members, findings). val_auroc: the
    ensemble's."""
    first = next(one for one in checkpoints if one.size_px)
    return Checkpoint(
        weights={},
        model=ENSEMBLE,
        findings=card.findings,
        size_px=first.size_px,
        pixel_mean=first.pixel_mean,
        pixel_std=first.pixel_std,
        channels=first.channels,
        tabular=any(one.tabular for one in checkpoints),
        exclusive=members[0].exclusive,
        epoch=0,
        val_auroc=val_auroc,
        delta_table_id=card.delta_table_id,
        delta_version=card.delta_version,
        run_id=run.run_id,
        commit=run.commit,
        settings=settings.to_dict(),
        ancestors=_ancestors(checkpoints),
        software=versions_of("torch", "numpy", "scikit-learn"),
        members=[
            {
                "checkpoint": vars(checkpoint),
                "shifts": member.shifts.tolist(),
                "temperatures": member.temperatures.tolist(),
                "votes": of_member.tolist(),
            }
            for checkpoint, member, of_member in zip(checkpoints, members, votes, strict=True)
        ],
    )


def _ancestors(checkpoints: list[Checkpoint]) -> list[dict]:
    """Those of all members, each once: none of them may have seen the test split."""
    found = []
    for checkpoint in checkpoints:
        found += [ancestor for ancestor in checkpoint.ancestors if ancestor not in found]
    return found
