"""The results of an external test, in the workspace's folder of the site: JSON, a page of text, tables, figures."""

from pathlib import Path

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from conf.words import counted
from conf.writing import atomic_path, write_json
from inference.candidate.measuring.answers import SHARES
from inference.candidate.measuring.evaluate import Scored
from inference.external.answered import ANSWER_HEADS, answer_cells, answer_lines, new_answer_cells
from inference.external.figures import draw_areas, draw_calibration
from inference.external.standards import SECOND_HEADS, second_cells, second_lines
from inference.film.answers import OPERATING_POINT
from inference.film.stated import lines_of
from inference.model.properties import Properties
from training.measures.cells import interval_cell, markdown_table, value_cell, with_interval
from training.record.figures import draw_subgroups

REPORT, PAGE = "report.json", "report.md"
FIGURES = ("auroc.png", "reliability.png", "subgroups.png")
TABLES = ("findings.csv", "misses.csv", "predictions.parquet", "left_out.csv")
LEFT_OUT = ["image_id", "patient_id", "reason"]
AREA_HEADS = ("positives", "AUROC", "own test", "change")
FIT_HEADS = ("ECE before", "after", "sensitivity before", "after", "specificity before", "after")
RATE_HEADS = ("sensitivity", "specificity", "PPV", "NPV", "ECE")


def write_results(folder: Path, report: dict, scored: Scored, left_out: pd.DataFrame, properties: Properties) -> None:
    """Writes every file of the results, each atomically; report.json last."""
    findings, mode = properties.findings, report["model"]["mode"]
    title = title_of(report)
    # A column without any number would hold objects.
    groups = pd.DataFrame(report["subgroups"]).astype(dict.fromkeys(("auroc", "low", "high"), float))
    draw_areas(folder / "auroc.png", report, title)
    draw_calibration(folder / "reliability.png", scored.labels, scored.probabilities[mode], findings, title)
    draw_subgroups(folder / "subgroups.png", groups, title)
    answers = scored.images[["image_id", "patient_id"]].assign(
        labels=list(scored.labels), probabilities=list(scored.probabilities[mode])
    )
    with atomic_path(folder / "predictions.parquet") as temporary:
        answers.to_parquet(temporary, index=False)
    for name, table in (
        ("findings.csv", pd.DataFrame(list(rows_of(report)))),
        ("misses.csv", pd.DataFrame(report["misses"])),
        ("left_out.csv", left_out[LEFT_OUT]),
    ):
        with atomic_path(folder / name) as temporary:
            table.to_csv(temporary, index=False)
    write_report(folder, report)


def write_report(folder: Path, report: dict) -> None:
    """Writes the report for people and, last, for programs."""
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(page_of(report), encoding="utf-8")
    write_json(folder / REPORT, report)


def title_of(report: dict) -> str:
    """Such as `chexscale version 3, INT8, on hospital-b (Delta version 0), 250 films of 80 patients`."""
    model, films = report["model"], report["films"]
    size = f"{counted(report['images'], 'film')} of {counted(report['patients'], 'patient')}"
    return (
        f"{model['name']} version {model['version']}, {model['mode'].upper()}, on {report['site']} "
        f"(Delta version {films['delta_version']}), {size}"
    )


def rows_of(report: dict) -> list[dict]:
    """One row per shared finding, and `mean`: every number, for a table that other programs read."""
    shared, own = report["findings"]["shared"], report["own_test"]
    rows = []
    for finding in (*shared, "mean"):
        row = {"finding": finding, "name_in_films": shared.get(finding, "")}
        row |= {name: report[name].get(finding) for name in ("known", "positives", "calibration_error")}
        parts = {name: report[name][finding] for name in ("auroc", "average_precision")}
        parts |= {f"own_test_{name}": own[name][finding] for name in ("auroc", "change") if name in own}
        for point, rates in report["operating_points"].items() if finding != "mean" else ():
            row[f"threshold_{point}"] = rates[finding]["threshold"]
            parts |= {f"{name}_{point}": ends for name, ends in rates[finding].items() if name != "threshold"}
        if "unsure" in report and finding != "mean":
            facts = report["unsure"]["findings"][finding]
            row |= {name: facts[name] for name in ("absent_below", "present_above")}
            parts |= {name: facts[name] for name in SHARES}
        if second := report.get("second"):
            parts |= {f"{name}_of_both": second[name][finding] for name in ("auroc_first", "auroc_second", "change")}
            measured = second["findings"].get(finding, {})
            row |= {f"{name}_of_both": value for name, value in measured.items() if not isinstance(value, dict)}
            parts |= {f"{name}_of_both": ends for name, ends in measured.items() if isinstance(ends, dict)}
        for name, ends in parts.items():
            row |= {name: ends["value"], f"{name}_low": ends["low"], f"{name}_high": ends["high"]}
        rows.append(row)
    return rows


def area_cells(report: dict, finding: str) -> list[str]:
    """The cells of AREA_HEADS for one finding, or for `mean`."""
    own, positives = report["own_test"], report["positives"].get(finding)
    return [
        "" if positives is None else f"{positives:,}",
        with_interval(report["auroc"][finding]),
        value_cell(own["auroc"][finding]["value"]) if "auroc" in own else "-",
        with_interval(own["change"][finding], "+.2f") if "change" in own else "-",
    ]


def rate_cells(report: dict, finding: str) -> list[str]:
    """The cells of RATE_HEADS for one finding."""
    rates = report["operating_points"][OPERATING_POINT][finding]
    return [
        *(with_interval(rates[name], ".2f") for name in ("sensitivity", "specificity")),
        *(value_cell(rates[name]["value"], ".2f") for name in ("ppv", "npv")),
        value_cell(report["calibration_error"][finding]),
    ]


def fit_cells(report: dict, finding: str) -> list[str]:
    """The cells of FIT_HEADS for one finding: before and after, on the films that were not fitted to."""
    fit = report["recalibration"]
    before, after = fit["before"], fit["after"]
    rates = [part["operating_points"][OPERATING_POINT][finding] for part in (before, after)]
    return [
        *(value_cell(part["calibration_error"][finding]) for part in (before, after)),
        *(value_cell(part[name]["value"], ".2f") for name in ("sensitivity", "specificity") for part in rates),
    ]


def held_out(fit: dict) -> str:
    """Such as `500 other films of 150 patients`."""
    films, patients = counted(fit["held_out"]["images"], "other film"), counted(fit["held_out"]["patients"], "patient")
    return f"{films} of {patients}"


def tables_of(report: dict) -> list[Table]:
    """AUROC here and on the model's own test split; the rates at the shipped thresholds, and calibration."""
    findings = list(report["findings"]["shared"])
    parts = [
        ("AUROC, 95% intervals by patient", AREA_HEADS, [*findings, "mean"], area_cells),
        (f"At the shipped thresholds ({OPERATING_POINT})", RATE_HEADS, findings, rate_cells),
    ]
    if "unsure" in report:
        rate = f"error rate of {report['unsure']['error_rate']:g}"
        parts.append((f"Answers at an {rate}, by the shipped bounds", ANSWER_HEADS, findings, answer_cells))
    if second := report.get("second"):
        names = [name for name in findings if name in second["findings"]]
        parts.append(
            (
                f"By the labels of the films (1) and of {second['title']} (2)",
                SECOND_HEADS,
                [*names, "mean"],
                second_cells,
            )
        )
    if fit := report.get("recalibration"):
        parts.append((f"Recalibrated, on {held_out(fit)}", FIT_HEADS, findings, fit_cells))
        if "unsure" in fit["after"]:
            parts.append((f"Answers at an {rate}, recalibrated", ANSWER_HEADS, findings, new_answer_cells))
    tables = []
    for title, heads, names, cells in parts:
        # It fits terminals of 80 columns.
        table = Table(title=Text(title, "table.title"), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("finding", no_wrap=True)
        for head in heads:
            table.add_column(head, justify="right")
        for name in names:
            table.add_row(Text(name), *map(Text, cells(report, name)), style="bold" if name == "mean" else None)
        tables.append(table)
    return tables


def page_of(report: dict) -> str:
    """The results as Markdown, with the figures."""
    films, share, own = report["films"], report["unfamiliar"], report["own_test"]
    shared = report["findings"]["shared"]
    lines = [
        f"# Tested at {report['site']}",
        "",
        f"**{report['note']}** No output may guide the care of a patient.",
        "",
        f"- Model: {title_of(report).partition(', on ')[0]}, trained by run {report['model']['run_id']}.",
        f"- Films: {films['title']} (table {films['delta_table_id']}), splits {', '.join(films['splits'])}; "
        f"{counted(report['images'], 'film')} of {counted(report['patients'], 'patient')}.",
        f"- Overlap: {films['seen_by_training']}; {counted(films['left_out'], 'film')} left out.",
        f"- Unlike the training data: {share['value']:.1%} of the films "
        f"(95% interval {interval_cell(share)}). No finding is called on them.",
        f"- Only the model knows: {', '.join(report['findings']['only_model']) or 'none'}. "
        f"Only the films have: {', '.join(report['findings']['only_films']) or 'none'}.",
    ]
    if "attributes" in report:
        first, *doubts = lines_of(report["attributes"])
        lines.append(f"- Age, sex and view are inputs of the model. {first}.")
        lines += [f"  - {doubt.strip()}" for doubt in doubts]
    if "missing" in own:
        lines.append(f"- Not compared with the model's own test split: {own['missing']}.")
    lines += [
        "",
        f"Thresholds: {OPERATING_POINT}, chosen on the validation split of the model's own table. Intervals are 95% "
        "ones by patient. `own test` and `change` are over the findings that both sets of films define.",
        "",
        *markdown_table(["finding", *AREA_HEADS], [[name, *area_cells(report, name)] for name in (*shared, "mean")]),
        "",
        *markdown_table(["finding", *RATE_HEADS], [[name, *rate_cells(report, name)] for name in shared]),
        "",
        *answer_lines(report, list(shared)),
        *second_lines(report),
        *fit_lines(report),
        "## Missed findings by group",
        "",
        *markdown_table(
            ["group", "finding", "positives", "missed"],
            [
                [
                    f"{row['attribute']} {row['group']}",
                    row["finding"],
                    f"{row['positives']:,}",
                    with_interval(row, ".2f"),
                ]
                for row in report["misses"]
            ],
        ),
    ]
    lines += ["", *[f"![{name}]({name})" for name in FIGURES], ""]
    return "\n".join(lines)


def fit_lines(report: dict) -> list[str]:
    """The page's section on the recalibration; empty if there is none."""
    fit = report.get("recalibration")
    if not fit:
        return []
    rows = [[name, *fit_cells(report, name)] for name in report["findings"]["shared"]]
    to = f"{counted(fit['fitted_to']['images'], 'film')} of {counted(fit['fitted_to']['patients'], 'patient')}"
    kept = f" Unchanged, of too few patients or ranked no better than by chance: {', '.join(fit['kept'])}."
    kept = kept if fit["kept"] else ""
    return [
        "## Recalibrated for this site",
        "",
        f"Calibration and thresholds were fitted to {to}. Before and after, on {held_out(fit)}.{kept}",
        "",
        *markdown_table(["finding", *FIT_HEADS], rows),
        "",
        *answer_lines(fit["after"], list(report["findings"]["shared"])),
    ]
