"""The model card: the model, the data it was trained and measured on, its intended use, and its limits.

Mitchell et al., "Model cards for model reporting", FAT* 2019. It is written as JSON for the service's page, and as
text for people, with a sheet for whoever reports a study of the model.
"""

from pathlib import Path

import numpy as np

from conf.words import RESEARCH_USE, counted
from conf.writing import write_json
from etl.contract.schema import Card
from inference.candidate.measuring.evaluate import NUM_RESAMPLES, Scored
from inference.model.card_pages import pages_of
from inference.model.properties import CARD_FILE, Properties
from training.measures.calibration import bin_reliability
from training.measures.cells import with_interval
from training.measures.subgroups import MEAN, subgroup_table
from training.measures.thresholds import measure_thresholds
from training.record.evaluation import NUM_BINS, named, records

INTENDED_USE = (
    f"{RESEARCH_USE} For research on chest radiographs like those of the data below: adults' "
    "or children's frontal films in the proportions of its training split. No output may guide the care of a patient."
)
LIMITS = (
    "Labels of public sets were mined from reports, and some are wrong: the model is measured against labels, not "
    "against disease.",
    "Performance on films of other hospitals, devices, ages or views than the test split's is unknown.",
    "Findings without an AUROC in the test split were not measured at all.",
    "A heat map shows where the network looked, not that the finding is there.",
    "The distance from the training data finds films that look different; it does not find wrong answers on films that "
    "look familiar.",
)
ATTRIBUTES_LIMIT = (
    "Age, sex and view raise or lower a probability as they went along with the labels of the training split, whatever "
    "the reason: AP may mean no more there than that the sickest are filmed in bed."
)
"""of a model that takes them"""
OF_PHANTOMS = "It was measured on phantoms only: how much of the lungs it finds on real films is unknown."
"""of a lung network"""
RELATIVE_MAPS = (
    "The network answers by a class token, so its heat maps are relative: they compare the patches of a film with each "
    "other, and the probability is not composed of them."
)
MIXED_MAPS = (
    "Several networks vote, so the heat maps are relative: the weighted mean of their maps compares the places of a "
    "film with each other, and the probability is not composed of it."
)


def describe_model(properties: Properties, card: Card, scored: Scored, report: dict, seed: int, study: dict) -> dict:
    """The card of the INT8 model, ready for JSON.

    scored, report: measurements of the test split, see report.py. study: the parts of study.py, or some of them.
    """
    findings, labels, probabilities = properties.findings, scored.labels, scored.probabilities["int8"]
    finite = np.isfinite(probabilities).all()
    points = {
        name: vars(measure_thresholds(labels, probabilities, np.array(values, np.float64))) if finite else {}
        for name, values in properties.thresholds.items()
    }
    subgroups = (
        subgroup_table(labels, probabilities, scored.images, findings, num_resamples=NUM_RESAMPLES, seed=seed)
        if finite
        else None
    )
    reliability = bin_reliability(labels, probabilities, NUM_BINS) if finite else None
    return {
        "model": {
            "network": properties.network,
            "exact_maps": properties.exact_maps,
            "members": properties.members,
            "precision": "INT8",
            "input": properties.input,
            "channels": properties.channels,
            "attributes": properties.attributes,
            "lungs": card.lungs,
            "findings": findings,
            "exclusive": properties.exclusive,
            "run_id": properties.run_id,
            "commit": properties.commit,
            "ancestors": properties.ancestors,
        },
        "intended_use": INTENDED_USE,
        "limits": [
            *LIMITS,
            *([ATTRIBUTES_LIMIT] if properties.attributes else []),
            *([limit_of_network(card.lungs)] if card.lungs else []),
            *([] if properties.exact_maps else [MIXED_MAPS if properties.members else RELATIVE_MAPS]),
        ],
        "data": {
            "title": card.title,
            "source": card.source_name,
            "delta_table_id": card.delta_table_id,
            "delta_version": card.delta_version,
            "split_rule": card.split_rule,
            "images": card.images,
            "patients": card.patients,
            "positives": card.positives,
        },
        "test_auroc": report["test_auroc"]["int8"],
        "difference_to_fp32": report["difference_to_fp32"]["int8"],
        "calibration_error": named(findings, reliability.expected_calibration_error) if finite else None,
        "thresholds": {
            name: {
                "probability": dict(zip(findings, properties.thresholds[name], strict=True)),
                **{key: named(findings, values) for key, values in measured.items()},
            }
            for name, measured in points.items()
        },
        **({"unsure": report["unsure"]["int8"]} if "unsure" in report else {}),
        "localisation": report["localisation"].get("int8", {}),
        "subgroups": records(subgroups[subgroups["finding"] == MEAN]) if finite else None,
        "gate": report["gate"],
        "speed": report["speed"]["int8"] | {"machine": report["machine"]},
        "study": study,
    }


def limit_of_network(about: dict) -> str:
    """What is known of the network that cropped the films to the lungs. about: its lungs.json; older ones say less."""
    by = f"A network cut the films to the lungs (run {about.get('run_id', 'unknown')})"
    measured = about.get("overlap", {}).get(about.get("precision"), {}).get("test")
    if not measured:
        return f"{by}; how well it finds them was not recorded."
    low, high = measured["interval"]
    overlap = with_interval({"value": measured["iou"], "low": low, "high": high})
    said = (
        f"{by}. On the {counted(measured['films'], 'film')} with masks of the test split of {about['data']}, its field "
        f"overlaps with the mask by an IoU of {overlap} on average, {measured['lowest']:.3f} at least."
    )
    return f"{said} {OF_PHANTOMS}" if about.get("phantoms") else said


def write_model_card(described: dict, folder: Path) -> None:
    """Writes model_card.json, and its pages for people, into `folder`."""
    write_json(folder / CARD_FILE, described)
    for name, text in pages_of(described).items():
        (folder / name).write_text(text, encoding="utf-8")
