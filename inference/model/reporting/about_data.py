"""Answers on the data, from a model card. Each function returns lines of Markdown; none if the card does not say."""

from collections.abc import Callable

from conf.words import counted
from training.measures.cells import markdown_table, value_cell

SPLITS = ("train", "val", "test")
SPLIT_RULES = {
    "source": "the source's own split (its official lists, a column or folders) where it has one, otherwise a hash of "
    "the patient",
    "lists": "lists of images that were given with the data",
    "hashed": "a hash of the patient and the seed",
}
UNCERTAIN = {"unknown": "counts as unknown", "zero": "counts as absent", "one": "counts as present"}
SQUARES = {"pad": "padded with black to a square", "stretch": "stretched to a square"}
INTENSITIES = {
    "none": "grey values as in the file",
    "percentile": "grey values stretched from their 0.5th to their 99.5th percentile",
    "clahe": "grey values equalised by region (CLAHE)",
}
CHECKS = {
    "constant": "films of one grey value",
    "clipped": "films with too many black or white pixels",
    "inverted": "films with dark bones and bright air",
    "lateral": "films that look like a lateral view",
    "duplicates": "copies of another film of the patient",
    "duplicates_across_patients": "copies of another patient's film",
}
MAX_FILES = 12
"""label and list files that are named; PadChest and others have few, a folder of DICOM files may have thousands"""


def table_of(card: dict) -> dict:
    """What study.py says about the table; empty in cards of older releases."""
    return card.get("study", {}).get("table", {})


def by_source(card: dict, sentence: Callable[[dict], str]) -> list[str]:
    """A line for each source, from its settings; sources that would say the same share one."""
    said: dict[str, list[str]] = {}
    for name, settings in table_of(card).get("read_by", {}).items():
        if text := sentence(settings):
            said.setdefault(text, []).append(name)
    several = len(table_of(card).get("read_by", {})) > 1
    return [f"{', '.join(names)}: {text}" if several else text for text, names in said.items()]


def sources(card: dict) -> list[str]:
    data, table = card["data"], table_of(card)
    lines = [f"{data['title']}, Delta table {data['delta_table_id']}."]
    lines += by_source(
        card, lambda settings: f"Read as `--etl.format {settings['format']}`." if "format" in settings else ""
    )
    files = list(table.get("files", {}).items())
    named = ", ".join(f"{name} ({digest[:12]})" for name, digest in files[:MAX_FILES])
    more = f", and {len(files) - MAX_FILES} more" if len(files) > MAX_FILES else ""
    return [*lines, f"Label and list files, with the beginning of their SHA-256: {named}{more}."] if files else lines


def dates(card: dict) -> list[str]:
    at = table_of(card).get("committed_at")
    return [f"This version of the table was written at {at}. When the films were taken is not recorded."] if at else []


def eligibility(card: dict) -> list[str]:
    def sentence(settings: dict) -> str:
        parts = []
        if "views" in settings:
            parts.append(f"views kept: {', '.join(settings['views']) or 'all that the source has'}")
        if number := settings["exclusion_lists"]:
            parts.append(f"{counted(number, 'list')} of films to leave out")
        # Colour images are not checked for their content.
        quality = settings.get("quality", {}) if card["model"].get("channels") != 3 else {}
        refused = [words for key, words in CHECKS.items() if quality.get(key)]
        if side := quality.get("min_side_px"):
            refused.append(f"films with a side below {side} px")
        if quality:
            parts.append(f"refused: {', '.join(refused) or 'no film for its content'}")
        if dicom := settings.get("dicom"):
            burned = "kept" if dicom["burned_in"] else "refused"
            parts.append(
                f"of DICOM files, the modalities {', '.join(dicom['modalities'])}; films whose tags say that "
                f"annotations are burned in are {burned}"
            )
        text = "; ".join(parts)
        return f"{text[:1].upper()}{text[1:]}." if text else ""

    return by_source(card, sentence)


def preparation(card: dict) -> list[str]:
    def sentence(settings: dict) -> str:
        bits = settings.get("grey_bits", 0)
        greys = f", 16-bit files read as {bits} bits" if bits else ""
        if not {"square", "intensity"} <= settings.keys():
            return ""
        square, intensity = settings["square"], settings["intensity"]
        colours = "RGB" if card["model"].get("channels") == 3 else "grey"
        margin = settings.get("crop_margin", 0)
        crop = f"cropped to the lungs with a margin of {margin:g}, " if settings.get("crop") == "lungs" else ""
        made = f"{crop}{SQUARES[square]} and resized"
        return f"Each film is decoded to {colours}, {made}; {INTENSITIES[intensity]}{greys}."

    lines = by_source(card, sentence)
    about = card.get("study", {}).get("training", {})
    # The networks of an ensemble take the same films.
    training = next((one for one in about.get("members", [about]) if "augmentation" in one), None)
    if not (lines and training):
        return lines
    changes = training["augmentation"]
    return [
        *lines,
        f"Input: {card['model']['input']}. From each pixel, {training['pixel_mean']:.1f} is subtracted; it is "
        f"divided by {training['pixel_std']:.1f}; mean and standard deviation of the training split (0 to 255).",
        f"Random changes in training only: rotation up to {changes['rotation_degrees']:g} degrees, shift up to "
        f"{changes['shift']:.0%}, zoom up to {changes['zoom']:.0%}, contrast up to {changes['contrast']:.0%}; no "
        "mirroring.",
    ]


def subsets(card: dict) -> list[str]:
    def sentence(settings: dict) -> str:
        return f"Findings chosen or merged: {', '.join(settings['findings'])}." if settings.get("findings") else ""

    if not (table := table_of(card)):
        return []
    lines = [f"Findings: {', '.join(card['model']['findings'])}.", *by_source(card, sentence)]
    left = "; ".join(f"{number:,} {what}" for what, number in table["left_out"].items())
    return [*lines, f"Files of the source that were left out: {left or 'none'}."]


def pseudonyms(card: dict) -> list[str]:
    if not table_of(card).get("pseudonyms"):
        return []
    return ["Names of patients and images are keyed hashes (HMAC-SHA256) of the source's; the key is not recorded."]


def missing(card: dict) -> list[str]:
    if not (table := table_of(card)):
        return []
    lines = by_source(
        card, lambda settings: f"A label of -1 {UNCERTAIN[settings['uncertain']]}." if "uncertain" in settings else ""
    )
    unknown = [
        f"{finding} {sum(card['data']['images'][split] - table['known'][split][finding] for split in SPLITS):,}"
        for finding in card["model"]["findings"]
        if any(table["known"][split][finding] < card["data"]["images"][split] for split in SPLITS)
    ]
    lines.append(f"Images with an unknown label: {', '.join(unknown)}." if unknown else "Every label is known.")
    strange = ", ".join(f"{what} {number:,}" for what, number in table["not_understood"].items())
    if strange:
        lines.append(f"Images whose source says what was not understood, which counts as unknown: {strange}.")
    return [*lines, "An unknown label adds nothing to the loss or to a measure."]


def labels(card: dict) -> list[str]:
    def sentence(settings: dict) -> str:
        chosen = settings.get("labels") or {}
        labeller = f"; labeller: {chosen['labeller']}" if chosen.get("labeller") else ""
        readers = f"; readers joined by `{chosen['readers']}`" if settings.get("format") == "vindr" else ""
        return f"The labels are those in the source's files{labeller}{readers}. How they were made is not recorded."

    lines = by_source(card, sentence)
    if done := table_of(card).get("corrections"):
        lines.append(
            f"{counted(done['people'], 'person', 'people')} judged some of them: {counted(done['changed'], 'label')} "
            f"corrected, {done['confirmed']:,} confirmed, {counted(done['excluded'], 'image')} left out. Who and why "
            "stands on the dataset card. If labels were judged because a model contradicted them, measures on the test "
            "split flatter it."
        )
    for other, part in table_of(card).get("agreement", {}).items():
        kappas = ", ".join(f"{finding} {value_cell(one['kappa'], '.2f')}" for finding, one in part["findings"].items())
        lines.append(f"Agreement with the labels of {other} (Cohen's kappa) on {part['images']:,} images: {kappas}.")
    return lines


def partitions(card: dict) -> list[str]:
    def sentence(settings: dict) -> str:
        if not {"split", "val_fraction", "test_fraction", "seed"} <= settings.keys():
            return ""
        fold = f" (fold {settings['test_fold']})" * bool(settings.get("test_fold"))
        return (
            f"By {SPLIT_RULES[settings['split']]}. Where that leaves it open, {settings['test_fraction']:g} of the "
            f"patients are test patients{fold} and {settings['val_fraction']:g} of the others validation patients; "
            f"seed {settings['seed']}."
        )

    return by_source(card, sentence)


def disjoint(card: dict) -> list[str]:
    data, read_by = card["data"], table_of(card).get("read_by", {})
    lines = ["By patient: the ETL checks on the written table that no patient is in two splits."]
    unnamed = [name for name, settings in read_by.items() if settings["names_patients"] is False]
    if unnamed:
        lines.append(
            f"**The label table of {', '.join(unnamed)} names no patients**, so every image, or every Patient ID of "
            "DICOM files, counts as a patient."
        )
    elif data["images"] == data["patients"]:
        lines.append("Every patient has one image: check that the source really tells its patients apart.")
    return lines


def flow(card: dict) -> list[str]:
    if not (table := table_of(card)):
        return []
    reasons = table["quarantine"]
    why = "; ".join(f"{number:,} {kind}" for kind, number in (reasons or {}).items())
    unknown = f"reasons unknown, because {table['quarantine_unknown']}" if reasons is None else why
    images, patients = card["data"]["images"], card["data"]["patients"]
    rows = [
        ["listed in the label files", f"{table['images_listed']:,}", ""],
        ["without a file", f"{table['images_absent']:,}", ""],
        [f"in quarantine{f': {unknown}' if unknown else ''}", f"{table['images_quarantined']:,}", ""],
        *[[f"{split} split", f"{images[split]:,}", f"{patients[split]:,}"] for split in SPLITS],
    ]
    return markdown_table(["", "images", "patients"], rows)


def cases(card: dict) -> list[str]:
    if not (table := table_of(card)):
        return []
    rows = [
        [f"{attribute} {group}", *[f"{numbers[split]:,}" for split in SPLITS]]
        for attribute, groups in table["groups"].items()
        for group, numbers in groups.items()
    ]
    for finding in card["model"]["findings"]:
        shares = [(card["data"]["positives"][split][finding], table["known"][split][finding]) for split in SPLITS]
        rows.append([finding, *[f"{positive:,} of {known:,}" for positive, known in shares]])
    return markdown_table(["images", *SPLITS], rows)
