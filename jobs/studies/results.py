"""A comparison for people and programs: a table on the screen, CSV, Markdown, and one page with its figures."""

import base64
from html import escape
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from conf.words import RESEARCH_USE, counted
from conf.writing import atomic_path
from jobs.studies.comparison import MEAN, Comparison, over_seeds, table_of, varied_settings
from jobs.studies.figures import draw_differences, draw_findings
from training.measures.cells import markdown_table, value_cell, with_interval

TABLE, PAGE, TEXT = "compare.csv", "compare.html", "compare.md"
FIGURES = ("differences.png", "findings.png")
SEED_HEADS = ["runs that differ in the seed alone", "mean of the mean AUROCs", "from to"]
INTERVALS = (
    "95% intervals by patient; differences are paired, on the same films. No interval is corrected for the number of "
    "runs and findings: between equally good runs, about one difference in twenty has an interval without 0."
)
HeadsAndRows = tuple[list[str], list[list[str]]]
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2128; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d9dde3; text-align: right; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; } img { max-width: 100%; } .note { font-weight: 600; }
"""


def write_results(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes every file, each atomically, and returns their paths."""
    title = title_of(comparison)
    draw_differences(folder / "differences.png", comparison, title)
    draw_findings(folder / "findings.png", comparison, title)
    with atomic_path(folder / TABLE) as temporary:
        table_of(comparison).to_csv(temporary, index=False)
    heads, rows = cells_of(comparison)
    tables = [(heads, rows), (["finding", *(run.name for run in comparison.runs)], finding_rows(comparison))]
    if groups := over_seeds(comparison):
        tables.insert(1, (SEED_HEADS, [seed_cells(*group) for group in groups]))
    for name, content in ((TEXT, as_markdown(title, tables)), (PAGE, as_page(title, folder, tables))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return [folder / name for name in (TABLE, TEXT, PAGE, *FIGURES)]


def title_of(comparison: Comparison) -> str:
    """Which films the AUROCs are of, and which run is the reference."""
    facts = comparison.reference.facts
    size = f"{counted(facts['test_images'], 'image')} of {counted(facts['test_patients'], 'patient')}"
    data = f"test split of Delta version {facts['delta_version']}, {size}"
    return f"{counted(len(comparison.runs), 'run')} beside {comparison.reference.name}: {data}"


def cells_of(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Heads and a row of text per run."""
    varied = varied_settings(comparison)
    heads = [
        "run",
        "network",
        "parameters",
        "px",
        "weights",
        "trained",
        *varied,
        "AUROC",
        "difference",
        "ECE",
        "seconds",
    ]
    heads += [f"to {comparison.target:g}", "images/s", "INT8/s", "INT8 fall"]
    rows = []
    for run, difference in zip(comparison.runs, comparison.differences, strict=True):
        facts, course = run.facts, run.course
        rows.append(
            [
                run.name,
                str(facts["network"]),
                "-" if facts["parameters"] is None else f"{facts['parameters'] / 1e6:.1f} M",
                *(str(facts[name] or "-") for name in ("size_px", "weights", "trained")),
                *(str(run.training.get(name, "-")) for name in varied),
                with_interval(run.auroc[MEAN]),
                "-" if run is comparison.reference else with_interval(difference[MEAN], "+.3f"),
                value_cell(facts["calibration_error"]),
                value_cell(course and course.seconds, ",.0f"),
                value_cell(course and course.seconds_to(comparison.target), ",.0f"),
                value_cell(facts["images_per_s"], ",.0f"),
                value_cell(facts["int8_images_per_s"], ",.0f"),
                value_cell(facts["int8_auroc_fall"], "+.4f"),
            ]
        )
    return heads, rows


def seed_cells(names: list[str], values: list[float]) -> list[str]:
    """The cells of SEED_HEADS."""
    ends = f"{min(values):.3f} to {max(values):.3f}" if values else "-"
    return [", ".join(names), value_cell(sum(values) / len(values) if values else None), ends]


def finding_rows(comparison: Comparison) -> list[list[str]]:
    """A row per finding: each run's AUROC with its interval."""
    return [
        [finding, *(with_interval(run.auroc[finding]) for run in comparison.runs)]
        for finding in (*comparison.findings, MEAN)
    ]


def screen_table(comparison: Comparison) -> Table:
    """The columns that fit a terminal beside the runs' names."""
    heads, rows = cells_of(comparison)
    shown = [heads.index(head) for head in ("run", "AUROC", "difference")]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place in shown:
        is_name = heads[place] == "run"
        table.add_column(heads[place], justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    for run, row in zip(comparison.runs, rows, strict=True):
        table.add_row(*(Text(row[place]) for place in shown), style="bold" if run is comparison.reference else None)
    return table


def as_markdown(title: str, tables: list[HeadsAndRows]) -> str:
    """The comparison as Markdown, with links to the figures."""
    lines = [
        f"# {title}",
        "",
        f"**{RESEARCH_USE}** {INTERVALS}",
        "",
    ]
    for heads, rows in tables:
        lines += [*markdown_table(heads, rows), ""]
    return "\n".join([*lines, *(f"![{name}]({name})" for name in FIGURES), ""])


def as_page(title: str, folder: Path, tables: list[HeadsAndRows]) -> str:
    """One HTML page that opens without a network, with the figures of `folder` inside."""
    parts = [f"<h1>{escape(title)}</h1>", f"<p class=note>{RESEARCH_USE}</p>"]
    parts.append(f"<p>{INTERVALS}</p>")
    for heads, rows in tables:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        parts.append(f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>")
    for name in FIGURES:
        picture = base64.b64encode((folder / name).read_bytes()).decode()
        parts.append(f'<p><img alt="{name}" src="data:image/png;base64,{picture}"></p>')
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
