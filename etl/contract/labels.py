"""Whether a table has the labels that a training needs, and what to do if not."""

from conf.words import counted
from etl.contract.schema import SPLITS, Card

VAL_ADVICE = {
    "hashed": "raise etl.val_fraction or change etl.seed",
    "lists": "put patients with and without a finding on val_list.txt",
    "source": "raise etl.val_fraction, or choose --etl.split hashed if the source has a val split of its own",
}


def missing_labels(card: Card) -> str:
    """Why a training on this table could learn or measure nothing, and the next step; empty if it can.

    It needs known labels in train, to learn from, and in val a finding with positives and negatives, so that an epoch
    has an AUROC.
    """
    problem, advice = _missing(card)
    return f"{problem}: {advice}, and run the ETL again" if problem else ""


def not_learned(card: Card) -> dict[str, list[str]]:
    """Reason -> the findings of which a training on this table learns nothing for that reason."""
    known, positives = card.known["train"], card.positives["train"]
    reasons: dict[str, list[str]] = {}
    for finding in card.findings:
        if not known[finding]:
            reasons.setdefault("no training image has a known label", []).append(finding)
        elif positives[finding] in (0, known[finding]):
            reasons.setdefault("all their known training labels are the same", []).append(finding)
    return reasons


def _missing(card: Card) -> tuple[str, str]:
    known = {split: sum(card.known[split].values()) for split in SPLITS}
    if not any(known.values()):
        return "no image of the table has a known label", _how_to_label(card)
    for split in ("train", "val"):
        if not known[split]:
            advice = "label images of its patients too, or choose another split (etl.split, etl.seed, etl.val_fraction)"
            return f"no image of the {split} split has a known label, but others have", advice
    if _has_both(card, "val"):
        return "", ""
    if _has_both(card, *SPLITS):
        problem = (
            f"no finding has both positives and negatives among the {counted(card.images['val'], 'image')} of the val "
            "split, so no epoch has an AUROC"
        )
        advice = "choose another split in the scenario files of its sources" if card.sources else ""
        return problem, advice or VAL_ADVICE[card.settings["split"]]
    positives = sum(sum(card.positives[split].values()) for split in SPLITS)
    if not positives:
        return "every known label is 0 (absent)", (
            "check that the label table has a 1 where a finding is present, and that --etl.columns.findings names the "
            "right columns"
        )
    if positives == sum(known.values()):
        return "every known label is 1 (present)", "write 0 where a finding is absent: an empty cell means unknown"
    return "no finding has both positives and negatives in the whole table", (
        "add images with and without a finding, or check what the label table says"
    )


def _has_both(card: Card, *splits: str) -> bool:
    """Whether a finding is known to be present in an image of these splits and absent from another."""
    positives, known = (
        {finding: sum(part[split][finding] for split in splits) for finding in card.findings}
        for part in (card.positives, card.known)
    )
    return any(0 < positives[finding] < known[finding] for finding in card.findings)


def _how_to_label(card: Card) -> str:
    if card.settings["format"] == "dicom" and not card.source_sha256:
        file = card.settings["columns"]["label_file"]
        return (
            f"there was no table {file!r} below the source, so put one there with a column per finding, or name it "
            "with --etl.columns.label_file FILE"
        )
    return (
        "write 1 (present) or 0 (absent) into the cells of the label table, because empty ones are unknown, and so are "
        "those with -1 unless etl.uncertain says otherwise"
    )
