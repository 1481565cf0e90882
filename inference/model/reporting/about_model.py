"""Answers on the network and its training, from a model card. Each function returns lines of Markdown; none if the card
does not say."""

from collections.abc import Callable
from statistics import mean

from training.measures.cells import value_cell

# Settings of a training that are named if they are not 0 or off.
NAMED = (
    *("optimizer", "learning_rate", "reference_batch", "schedule", "warmup_epochs", "weight_decay", "clip_norm"),
    *("label_smoothing", "freeze_batchnorm", "sync_batchnorm", "precision"),
)


def training_of(card: dict) -> dict:
    """What study.py says about the training; empty in cards of older releases."""
    return card.get("study", {}).get("training", {})


def registration_of(card: dict) -> dict:
    """What study.py says about exporting and measuring; empty in cards of older releases."""
    return card.get("study", {}).get("registration", {})


def predictors(card: dict) -> list[str]:
    attributes = card["model"].get("attributes")
    if not attributes:
        return ["The pixels of one film. Neither age, sex, view nor any clinical fact is an input."]
    trained = attributes["trained_on"]
    ages = trained["age_years"]
    span = "no known age" if ages["low"] is None else f"ages of {ages['low']:g} to {ages['high']:g} years"
    counts = [
        f"{name}: {', '.join(f'{word} {number:,}' for word, number in trained[name].items())}"
        for name in ("sex", "view")
    ]
    return [
        "The pixels of one film, the age and sex of the patient and the view position, as tables or DICOM tags have "
        "them. If one of the three is unknown, the network is told so. Clinical facts are no input.",
        f"The training split has {span}, and {ages['unknown']:,} films of unknown age; {'; '.join(counts)}. An answer "
        "for a value that it does not have says so.",
    ]


def network(card: dict) -> list[str]:
    model = card["model"]
    return [
        f"`{model['network']}` (training/network/ in the code), served as an {model['precision']} graph by OpenVINO.",
        f"Input: {model['input']}. Output: a calibrated probability for each of {len(model['findings'])} findings, a "
        "class activation map for each, and a distance from the training data.",
        "All weights and settings of the graph are in the files beside this sheet.",
    ]


def outputs(card: dict) -> list[str]:
    points = ", ".join(f"`{point}`" for point in card["thresholds"])
    fit = card.get("recalibrated")
    # A card of an older release does not say it.
    made = "sigmoid of (logit + shift) / temperature"
    if card["model"].get("exclusive"):
        made = "softmax of the classes' logits / temperature, so that those of a film sum to 1"
    chosen_on = f"films of {fit['site']}" if fit else "the validation split"
    return [
        f"Probabilities, and findings that are called from a threshold on. Thresholds were chosen on {chosen_on}: "
        f"{points} (Youden's J, or the named sensitivity).",
        f"Each probability is the {made}; the graph computes it from the film.",
    ]


def software(card: dict) -> list[str]:
    parts = {"Training": training_of(card).get("software"), "Export and tests": registration_of(card).get("software")}
    lines = [f"{what}: {', '.join(f'{n} {v}' for n, v in found.items())}." for what, found in parts.items() if found]
    if lines and not parts["Training"]:
        lines.append("The versions in the training were not recorded, because an older release trained the network.")
    return lines


def code(card: dict) -> list[str]:
    commit = card["model"]["commit"]
    lines = ["The code is CheXScale's (Apache-2.0); models and data have terms of their own."]
    if commit == "unknown":
        return [*lines, "Its commit is unknown, because the training did not run in a checkout."]
    changed = ", **with changes that are not committed**" if commit.endswith("-dirty") else ""
    run_id = card["model"]["run_id"]
    return [*lines, f"Commit in the training: {commit.removesuffix('-dirty')}{changed}; MLflow run {run_id}."]


def start(card: dict) -> list[str]:
    if members := training_of(card).get("members"):
        return _of_each(start, card, members)
    own = training_of(card)
    if "ancestors" in own and "settings" not in own:
        # A member that is no network.
        return []
    ancestors = own.get("ancestors", card["model"]["ancestors"])
    seed = training_of(card).get("settings", {}).get("seed")
    seeded = f" Seed {seed}." if seed is not None else ""
    if not ancestors:
        return [f"Random weights.{seeded}"]
    return [f"From {', which started from '.join(one['source'] for one in ancestors)}.{seeded}"]


def training(card: dict) -> list[str]:
    if members := training_of(card).get("members"):
        return _of_each(training, card, members)
    chosen = training_of(card).get("settings")
    if not chosen:
        return []
    step = training_of(card)["images_per_step"]
    first = f"{chosen['head_epochs']} epochs of the last layer alone, then up" if chosen.get("head_epochs") else "Up"
    loss = "cross-entropy over the classes" if chosen["loss"] == "cross_entropy" else "binary cross-entropy per finding"
    lines = [
        f"{first} to {chosen['epochs']} epochs{f' of {step} images per step' if step else ''}; loss: {loss}.",
        "; ".join(f"{name} {chosen[name]}" for name in NAMED if chosen.get(name)) + ".",
    ]
    if chosen.get("patience"):
        lines.append(f"Training stops after {chosen['patience']} epochs without a better validation.")
    return [*lines, "settings.yaml of the MLflow run has every setting."]


def imbalance(card: dict) -> list[str]:
    if members := training_of(card).get("members"):
        return _of_each(imbalance, card, members)
    weights = training_of(card).get("positive_weights")
    if not weights:
        return []
    if all(weight == 1 for weight in weights.values()):
        return ["Positive and negative labels weigh the same in the loss."]
    ceiling = training_of(card)["settings"].get("pos_weight_max")
    most = f", at most {ceiling:g}" if ceiling else ""
    named = ", ".join(f"{finding} {weight:.1f}" for finding, weight in weights.items())
    return [
        f"Weight of a positive label in the loss, negatives per positive of the training split{most}: {named}. The "
        "calibration takes its effect on the probabilities back."
    ]


def selection(card: dict) -> list[str]:
    about = training_of(card)
    if not about:
        return []
    if "members" in about:
        lines = _of_each(selection, card, about["members"])
        return [*lines, "The weights of the members, if they differ, and the last calibration come from it too."]
    if "settings" not in about:
        return [f"Mean AUROC on the validation split {value_cell(about['val_auroc'])}."]
    by = {"auroc": "mean AUROC", "loss": "loss", "top_1": "top-1 accuracy"}[about["settings"]["choose_by"]]
    lines = [
        f"Epoch {about['epoch']}, the best by the {by} of the validation split (mean AUROC there "
        f"{value_cell(about['val_auroc'])})."
    ]
    if not card.get("recalibrated"):
        lines.append("Calibration and thresholds come from the validation split too.")
    if ways := registration_of(card).get("ways_of_quantising"):
        lines.append(
            f"INT8: calibrated on {registration_of(card)['calibration_images']} images of the training split; ways "
            f"tried: {', '.join(ways)}."
        )
    return lines


def _of_each(answer: Callable[[dict], list[str]], card: dict, members: list[dict]) -> list[str]:
    """What each member of an ensemble answers. members: the parts of the card on their trainings."""
    lines = []
    for described, member in zip(members, card["model"]["members"], strict=True):
        own = card | {"study": {"training": described}}
        lines += [f"Member {member['network']}: {line}" for line in answer(own)]
    return lines


def ensembling(card: dict) -> list[str]:
    members = card["model"].get("members")
    if not members:
        return ["One network; no ensemble."]
    named = "; ".join(
        f"{member['network']} (MLflow run {member['run_id']}, mean weight {mean(member['votes'].values()):.2f})"
        for member in members
    )
    return [
        f"The probability is that of the weighted mean of {len(members)} models' calibrated probabilities, calibrated "
        f"once more: {named}."
    ]


def updating(card: dict) -> list[str]:
    fit = card.get("recalibrated")
    if not fit:
        return ["Neither network nor calibration was changed after registering."]
    return [
        f"Calibration and thresholds were fitted to {fit['site']}: {fit['fitted_to']['images']:,} films of "
        f"{fit['fitted_to']['patients']:,} patients there; the network is that of version {fit['version']}."
    ]
