"""The model card as Markdown, from its JSON. Imports no large library, because packing a model writes it too."""

from conf.words import counted
from training.measures.cells import interval_cell, markdown_table, value_cell, with_interval

TEXT_FILE = "model_card.md"
"""the card as text, beside the graphs in a registered model's folder"""

GATE = {True: "passed", False: "failed", None: "not asked"}


def to_text(described: dict) -> str:
    """The card as Markdown."""
    model, data, gate = described["model"], described["data"], described["gate"]
    youden = described["thresholds"]["youden"]
    lines = [
        f"# Model card: {model['network']}, {model['precision']}",
        "",
        f"**{described['intended_use']}**",
        "",
        f"- Input: {model['input']}. Output: a calibrated probability per finding, class activation maps, and a "
        "distance from the training data.",
        f"- Data: {data['title']} (table {data['delta_table_id']}), split by patient, rule `{data['split_rule']}`.",
        f"- {_origin(model)}.",
        f"- Gate {GATE[gate['passed']]}: {'; '.join(gate['reasons'])}.",
        *[f"- Too few patients to show much of {finding}." for finding in gate["few_patients"]],
        *_recalibrated_lines(described.get("recalibrated")),
        "",
        "| split | images | patients |",
        "|---|---|---|",
        *[f"| {split} | {count:,} | {data['patients'][split]:,} |" for split, count in data["images"].items()],
        "",
        "## Test split, 95% intervals by patient",
        "",
        "| finding | AUROC | interval | threshold (Youden, validation) | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
    ]
    for finding, ends in described["test_auroc"].items():
        cells = [value_cell(ends["value"]), interval_cell(ends)]
        cells += [value_cell(youden.get(key, {}).get(finding)) for key in ("probability", "sensitivity", "specificity")]
        # A pipe would begin the next cell.
        name = finding.replace("|", "\\|")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        *unsure_lines(described.get("unsure"), described.get("recalibrated", {}).get("site", "")),
        "## Subgroups, mean AUROC",
        "",
        "| group | images | patients | AUROC | interval |",
        "|---|---|---|---|---|",
    ]
    for row in described["subgroups"] or []:
        interval = interval_cell(row)
        group = f"{row['attribute']} {row['group']}"
        lines.append(f"| {group} | {row['images']} | {row['patients']} | {value_cell(row['auroc'])} | {interval} |")
    lines += ["", *tested_lines(described.get("tested_at", []))]
    return "\n".join([*lines, "## Limits", "", *[f"- {limit}" for limit in described["limits"]], ""])


def _origin(model: dict) -> str:
    by = f"run {model['run_id']}, commit {model['commit']}"
    if members := model.get("members"):
        return f"Joined by {by}, of {', '.join(member['network'] for member in members)}"
    return f"Trained by {by}, from {' from '.join(one['source'] for one in model['ancestors']) or 'random weights'}"


def unsure_lines(unsure: dict | None, site: str = "") -> list[str]:
    """The section of the Markdown on answers at an error rate; empty if the model does not answer unsure.

    site: to which the model was recalibrated, so that the bounds and the shares are those of films there.
    """
    if not unsure:
        return []
    heads = ("finding", "absent below", "present above", "present, answered absent", "absent, answered present")
    rows = [
        [finding, *(bound_cell(facts[key]) for key in ("absent_below", "present_above")), *share_cells(facts)]
        for finding, facts in unsure["findings"].items()
    ]
    rate = f"{unsure['error_rate']:.2%}".replace(".00%", "%")
    place = f"held-out films of {site}" if site else "test split"
    return [
        f"## Answers present, unsure and absent, error rate {rate}, {place}, 95% intervals by patient",
        "",
        *markdown_table((*heads, "unsure"), rows),
        "",
        *[f"- {sentence}" for sentence in guarantee_of(rate, site)],
        "",
    ]


def bound_cell(bound: float | None) -> str:
    """A probability at which an answer begins; with too few patients it never does."""
    return "never" if bound is None else f"{bound:.3f}"


def share_cells(facts: dict) -> list[str]:
    """Shares of wrong and of unsure answers to one finding; an answer that is never given cannot be wrong."""
    pairs = (("absent_below", "present_answered_absent"), ("present_above", "absent_answered_present"), ("", "unsure"))
    return ["never" if bound and facts[bound] is None else with_interval(facts[share], ".2f") for bound, share in pairs]


def guarantee_of(rate: str, site: str) -> list[str]:
    """What the error rate promises, in sentences. site: as for unsure_lines."""
    films = f"the films of {site} that the bounds were chosen on" if site else "the validation split"
    sentences = [
        f"Of the films with a finding, at most {rate} are answered absent, and of those without it at most {rate} "
        f"present, of new patients like those of {films}: the same hospital, the same mix. A test at another site "
        "shows what is left of it there.",
        "All films of a patient with a finding together count as one, in the promise as in the shares of errors above; "
        "the share of unsure films counts films.",
        "The promise is kept on average over new patients and choices of the bounds. A single choice may err more "
        "often; the shares above and their intervals say what came of this one.",
        "A film that is unlike the training data gets no answer, which counts as neither wrong nor unsure.",
    ]
    chosen = (
        "The validation split has also chosen the epoch, the votes in an ensemble, the temperature of classes and, if "
        "INT8 needed it, layers that stay in FP32, so that the promise is not exact. The temperatures of findings do "
        "no harm: they keep the order of the films."
    )
    return sentences if site else [*sentences, chosen]


def tested_lines(tests: list[dict]) -> list[str]:
    """The section of the Markdown on external tests, see inference/external/record.py; empty if there are none."""
    if not tests:
        return []
    heads = (
        "site",
        "day",
        "films",
        "patients",
        "mean AUROC",
        "change from the test split",
        "overlap with the training",
    )
    rows = []
    for test in tests:
        area = f"{with_interval(test['auroc'])} over {counted(test['findings'], 'finding')}"
        change = f"{with_interval(test['change'], '+.3f')} over {test['findings_of_change']}" if test["change"] else "-"
        named = f"{test['site']}, {test['mode'].upper()}"
        counts = [f"{test[key]:,}" for key in ("images", "patients")]
        rows.append([named, test["at"][:10], *counts, area, change, test["overlap"]])
    return ["## Tested at other sites, 95% intervals by patient", "", *markdown_table(heads, rows), ""]


def _recalibrated_lines(fit: dict | None) -> list[str]:
    """What a reader of the thresholds must know, if the calibration was fitted to another site."""
    if not fit:
        return []
    parts = [
        f"{counted(part['images'], 'film')} of {counted(part['patients'], 'patient')}"
        for part in (fit["fitted_to"], fit["held_out"])
    ]
    kept = f" Too few patients, as before: {', '.join(fit['kept'])}." if fit["kept"] else ""
    return [
        f"- Version {fit['version']} with calibration and thresholds for **{fit['site']}**, fitted to {parts[0]}. The "
        f"thresholds, sensitivities and specificities below are those of {parts[1]} there, whom the fit has not seen; "
        f"AUROCs are the own test split's, as before.{kept}"
    ]
