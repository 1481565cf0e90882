"""What a report on a model must say about its data and its training, for the model card: facts, ready for JSON.

inference/model/reporting/ writes them as text.
"""

import math

from conf.errors import InputError
from conf.programs import versions_of
from conf.settings import Training, restore
from conf.workspace import Workspace
from etl.contract.quarantine import kinds_of
from etl.contract.schema import SPLITS, Card, image_column
from etl.contract.table import committed_at
from etl.contract.version import TableVersion
from inference.candidate.measuring.evaluate import NUM_RESAMPLES
from training.loop.loss import loss_weights
from training.measures.subgroups import group_images
from training.network.checkpoint import Checkpoint
from training.reading.augment import MAX_CONTRAST, MAX_ROTATION_DEGREES, MAX_SHIFT, MAX_ZOOM

# Settings of a source that say how its films and labels were read; without paths, which may name a hospital or a user.
READ_BY = (
    *("format", "labels", "uncertain", "findings", "views", "dicom", "quality"),
    *("square", "crop", "crop_margin", "intensity", "grey_bits"),
    *("split", "val_fraction", "test_fraction", "test_fold", "seed"),
)
# Settings of a training that a report need not name, or that may hold a path; `weights` is among the ancestors.
UNNAMED = ("weights", "cache_dir", "cache_gb", "experiment", "delta_version", "checkpoint_steps")
REGISTERED_WITH = ("openvino", "nncf", "onnx", "torch", "numpy")


def describe_table(table: TableVersion, workspace: Workspace) -> dict:
    """How the version of the table was made, what was left out of it, and who is on its films.

    workspace: the one that names the table. `quarantine` is kind of reason -> images; None if it can no longer be
    read, and `quarantine_unknown` says why. Of values that were not understood only the numbers are kept, because the
    source may say anything there, even a name.
    """
    card = table.card
    reasons, unknown = {}, ""
    if card.images_quarantined:
        try:
            reasons = kinds_of(table.quarantined(workspace).reason).value_counts().to_dict()
        except InputError:
            # The error names folders of this machine.
            reasons, unknown = None, "the table of the quarantine can no longer be read"
    return {
        "committed_at": committed_at(table.shards, card.delta_version),
        "files": card.source_sha256,
        "images_listed": card.images_listed,
        "images_absent": card.images_absent,
        "images_quarantined": card.images_quarantined,
        "quarantine": reasons,
        "quarantine_unknown": unknown,
        "left_out": card.left_out,
        "not_understood": {what: sum(words.values()) for what, words in card.not_understood.items()},
        "pseudonyms": bool(card.identities),
        "known": card.known,
        "corrections": _count_corrections(card),
        "agreement": card.agreement,
        "read_by": _read_by(card),
        "groups": _count_groups(table),
    }


def _count_corrections(card: Card) -> dict[str, int]:
    """What people have corrected: numbers without names and reasons, which stay in the hospital; empty for nothing."""
    files = card.corrections.values()
    if not files:
        return {}
    changed = sum(sum(ways.values()) for file in files for ways in file["changed"].values())
    people = {person for file in files for person in file["who"]}
    numbers = {key: sum(file[key] for file in files) for key in ("confirmed", "excluded")}
    return {"changed": changed, **numbers, "people": len(people)}


def _read_by(card: Card) -> dict[str, dict]:
    """Name of each source -> its settings of READ_BY, whether its table has a column for the patient (None: its
    format has no choice), and the number of its lists of images to leave out."""
    sources = {name: part["settings"] for name, part in card.sources.items()} or {card.source_name: card.settings}
    described = {}
    for name, settings in sources.items():
        # Settings that hold for all sources, such as the square, are those of the run.
        kept = {key: {**card.settings, **settings}[key] for key in READ_BY if key in {**card.settings, **settings}}
        patient = settings.get("columns", {}).get("patient") if settings.get("format") in ("csv", "dicom") else None
        kept["names_patients"] = None if patient is None else bool(patient)
        kept["exclusion_lists"] = len(settings.get("exclude", []))
        described[name] = kept
    return described


def _count_groups(table: TableVersion) -> dict[str, dict[str, dict[str, int]]]:
    """Attribute -> group -> split -> images, of the groups that have any; see group_images."""
    rows = table.rows(*SPLITS)
    return {
        attribute: {
            group: {split: int(((groups == group) & (rows["split"] == split)).sum()) for split in SPLITS}
            for group in groups.categories
            if (groups == group).any()
        }
        for attribute, groups in group_images(rows).items()
    }


def describe_training(checkpoint: Checkpoint, card: Card) -> dict:
    """How the network was trained, and which epoch was kept. card: that of the table's
    version on which it was trained. Of an ensemble, `members` has it for each."""
    val_auroc = checkpoint.val_auroc if math.isfinite(checkpoint.val_auroc) else None
    if checkpoint.members:
        described = []
        for member in checkpoint.members:
            own = Checkpoint(**member["checkpoint"])
            described.append(describe_training(own, card) | {"ancestors": own.ancestors})
        return {"members": described, "val_auroc": val_auroc, "software": checkpoint.software}
    if not checkpoint.size_px:
        # The settings of a training are those of networks.
        return {"val_auroc": val_auroc, "software": checkpoint.software}
    settings = restore(Training, checkpoint.settings["training"])
    column = image_column(checkpoint.size_px)
    return {
        "settings": {key: value for key, value in checkpoint.settings["training"].items() if key not in UNNAMED},
        "images_per_step": checkpoint.plan.get("images_per_step"),
        "positive_weights": dict(zip(card.findings, loss_weights(card, settings).tolist(), strict=True)),
        "epoch": checkpoint.epoch,
        "val_auroc": val_auroc,
        "pixel_mean": card.pixel_mean[column],
        "pixel_std": card.pixel_std[column],
        "augmentation": {
            "rotation_degrees": MAX_ROTATION_DEGREES,
            "shift": MAX_SHIFT,
            "zoom": MAX_ZOOM,
            "contrast": MAX_CONTRAST,
        },
        "software": checkpoint.software,
    }


def describe_registration(report: dict) -> dict:
    """How the graph was made and measured. report: see report.py."""
    return {
        "ways_of_quantising": [attempt["name"] for attempt in report["attempts"]],
        "calibration_images": report["attempts"][0]["calibration_images"],
        "num_resamples": NUM_RESAMPLES,
        "familiar_in_test": report["familiarity"]["int8"]["test_familiar"],
        "baseline_auroc": report["test_auroc"]["baseline"]["mean"],
        "software": versions_of(*REGISTERED_WITH),
    }
