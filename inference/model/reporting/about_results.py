"""Answers on measurements and use, from a model card. Each function returns lines of Markdown; none if the card does
not say."""

from inference.model.card_text import tested_lines, unsure_lines
from inference.model.reporting.about_model import registration_of
from training.measures.cells import interval_cell, markdown_table, value_cell, with_interval

RATES = ("sensitivity", "specificity", "ppv", "npv")


def use(card: dict) -> list[str]:
    return [card["intended_use"]]


def measures(card: dict) -> list[str]:
    return [
        "AUROC of each finding and their mean; sensitivity, specificity, PPV and NPV at thresholds; expected "
        "calibration error. A finding without positive or without negative films is undefined."
    ]


def uncertainty(card: dict) -> list[str]:
    number = registration_of(card).get("num_resamples")
    return [f"95% percentile intervals of {number:,} bootstrap resamples of patients."] if number else []


def internal_test(card: dict) -> list[str]:
    data, tried = card["data"], registration_of(card).get("ways_of_quantising", [])
    lines = [
        f"Test split: {data['images']['test']:,} images of {data['patients']['test']:,} patients, which this training "
        "and its choice of epoch, calibration and thresholds have not used."
    ]
    ours = card["data"]["delta_table_id"]
    if unchecked := [one["source"] for one in card["model"]["ancestors"] if one.get("delta_table_id") != ours]:
        lines.append(f"Whether {', '.join(unchecked)}, from which it started, has seen these films is not known.")
    if tried:
        number = "the quantised network" + (f" in {len(tried)} forms" if len(tried) > 1 else "")
        champion = ", and compared it with the champion," if card["gate"].get("champion_drop") else ""
        lines.append(f"The gate judged {number}{champion} on this same split.")
    return lines


def performance(card: dict) -> list[str]:
    youden, errors = card["thresholds"].get("youden", {}), card["calibration_error"] or {}
    rows = [
        [finding, with_interval(ends), *[value_cell(youden.get(rate, {}).get(finding), ".2f") for rate in RATES]]
        + [value_cell(errors.get(finding))]
        for finding, ends in card["test_auroc"].items()
    ]
    fit = card.get("recalibrated")
    place = f"of the films of {fit['site']} that the recalibration has not seen" if fit else "of the test split"
    heads = ["finding", "AUROC, test split", *[rate.upper() if "pv" in rate else rate for rate in RATES], "ECE"]
    answers = unsure_lines(card.get("unsure"), fit["site"] if fit else "")[2:-1]
    said = ["", f"Answers at an error rate of {card['unsure']['error_rate']:g} {place}:", ""] if answers else []
    return [f"Rates at the Youden threshold and ECE {place}:", "", *markdown_table(heads, rows), *said, *answers]


def baseline(card: dict) -> list[str]:
    ends = registration_of(card).get("baseline_auroc")
    if not ends:
        return []
    return [f"A logistic regression on thumbnails of the same films has a mean AUROC of {with_interval(ends)}."]


def subgroups(card: dict) -> list[str]:
    if not card["subgroups"]:
        return []
    rows = [
        [f"{row['attribute']} {row['group']}", f"{row['images']:,}", f"{row['patients']:,}", value_cell(row["auroc"])]
        + [interval_cell(row)]
        for row in card["subgroups"]
    ]
    heads = ["group, test split", "images", "patients", "mean AUROC", "95% interval"]
    return [*markdown_table(heads, rows), "", "Each mean is over the findings that are defined in the group."]


def clusters(card: dict) -> list[str]:
    of_sources = [row for row in card["subgroups"] or [] if row["attribute"] == "source"]
    if not of_sources:
        return []
    named = ", ".join(f"{row['group']} {value_cell(row['auroc'])}" for row in of_sources)
    return [f"Mean AUROC by source: {named}."]


def robustness(card: dict) -> list[str]:
    difference = with_interval(card["difference_to_fp32"]["mean"], "+.4f")
    return [f"Mean AUROC of INT8 minus that of FP32: {difference}. Nothing else was varied."]


def explanation(card: dict) -> list[str]:
    lines = ["Class activation maps (Zhou et al., CVPR 2016) show which places the network took as evidence."]
    if card["model"].get("members"):
        lines = ["The weighted mean of the members' maps shows which places speak more for a finding than others."]
    elif not card["model"].get("exact_maps", True):
        lines = ["The network's last layer, applied to each patch token, shows which places speak more for a finding."]
    if places := card["localisation"].get("all"):
        lines.append(
            f"The peak of the map lies in a box of the finding in {places['pointing_game']:.0%} of "
            f"{places['images']:,} findings with boxes; a random place would in {places['chance']:.0%}."
        )
    return lines


def external_test(card: dict) -> list[str]:
    return tested_lines(card.get("tested_at", []))[2:-1]


def limits(card: dict) -> list[str]:
    few = [f"Too few patients to show much of {finding}." for finding in card["gate"]["few_patients"]]
    return [f"- {limit}" for limit in (*few, *card["limits"])]


def poor_input(card: dict) -> list[str]:
    refused = (
        "The checks of films are for grey ones, and a model of colour images has none."
        if card["model"].get("channels") == 3
        else "A film that the checks of the training data would refuse gets a warning with its answer."
    )
    lines = [f"A file that cannot be decoded gets an error. {refused}"]
    if (share := registration_of(card).get("familiar_in_test")) is not None:
        lines.append(
            "On a film whose distance from the training data is above the threshold no finding is called; "
            f"{1 - share:.1%} of the test split lie above it."
        )
    return lines
