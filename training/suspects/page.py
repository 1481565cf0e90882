"""One page with the first suspects of each finding: the film, the heat map, the given label, and what the model says.

It opens without a network and holds its pictures. Two trainings may have predicted two of its films.
"""

from html import escape

import pandas as pd

from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from conf.writing import atomic_path
from etl.contract.version import TableVersion
from training.suspects.films import show_films, show_heat_maps
from training.suspects.find import Found
from training.suspects.predicted import Predicted

PAGE = "page.html"
LABELS = {1: "present", 0: "absent"}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h2 { border-bottom: 1px solid #8886; margin-top: 2.5rem; }
.note { font-weight: 600; } .soft { opacity: .75; }
.films { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
figure { margin: 0; break-inside: avoid; } figcaption { font-size: .85rem; overflow-wrap: anywhere; line-height: 1.35; }
.pair { display: flex; gap: 2px; background: #000; } .pair img { width: 50%; aspect-ratio: 1; display: block; }
.present { background: #ffd400; color: #000; padding: 0 .3em; }
.absent { background: #3a414b; color: #fff; padding: 0 .3em; }
"""


def write_page(
    workspace: Workspace,
    table: TableVersion,
    found: Found,
    shown: pd.DataFrame,
    predicted: Predicted,
    workspaces: list[Workspace],
) -> list[str]:
    """Writes the page, atomically; returns sentences on films without a heat map. shown: rows of Found.suspects."""
    films = show_films(table, shown.assign(file=_files_of(shown, predicted)))
    maps, notes = show_heat_maps(table, shown.assign(file=_files_of(shown, predicted)), predicted, workspaces)
    title = f"Labels that are probably wrong: {table.card.title}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p class=note>{RESEARCH_USE}</p>"]
    parts.append(
        "<p>A model that contradicts a label may be wrong itself. The least likely label of each finding comes first. "
        "Left: the film. Right: the places that the model takes for evidence of the finding, coloured above its "
        "threshold; without colours it sees none. Patients whom the model was trained on are not here, as far as is "
        "known. Write what you see into <code>to_judge.csv</code>.</p>"
    )
    parts += [f"<p class=soft>{escape(note)}</p>" for note in notes]
    parts += [_section(finding, found.findings[finding], shown, films, maps) for finding in found.findings]
    if found.left_out:
        said = "; ".join(f"{escape(finding)}: {escape(why)}" for finding, why in found.left_out.items())
        parts.append(f"<h2>Left out</h2><p>{said}</p>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    text = f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'
    with atomic_path(workspace.label_quality / PAGE) as temporary:
        # A file name that is not UTF-8 arrives with lone surrogates, which UTF-8 cannot encode.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return notes


def _files_of(shown: pd.DataFrame, predicted: Predicted) -> list[str]:
    """The table's file of each suspect."""
    return predicted.rows["file"].to_numpy()[shown["place"]].tolist()


def _section(finding: str, part: dict, shown: pd.DataFrame, films: dict, maps: dict) -> str:
    """A finding's suspects as figures."""
    rows = shown[shown["finding"] == finding]
    number = part["suspects_present"] + part["suspects_absent"]
    said = f"The model contradicts {number:,} of {part['known']:,} known labels: {part['suspects_present']:,} present, "
    said += f"{part['suspects_absent']:,} absent. AUROC {part['auroc']:.3f}."
    if len(rows) < number:
        said += f" The first {len(rows):,} are shown; suspects.csv has all."
    figures = []
    for row in rows.itertuples():
        pictures = [films[row.image_id], maps.get((row.image_id, finding))]
        images = "".join(f'<img alt="" src="{uri}">' for uri in pictures if uri)
        label = LABELS[row.label]
        caption = f"{row.rank}. <b>{escape(row.image_id)}</b>, patient {escape(row.patient_id)}, {row.split}<br>"
        caption += f"labelled <span class={label}>{label}</span>, probability {row.probability:.3f}"
        figures.append(f"<figure><div class=pair>{images}</div><figcaption>{caption}</figcaption></figure>")
    return f"<h2>{escape(finding)}</h2><p>{said}</p><div class=films>{''.join(figures)}</div>"
