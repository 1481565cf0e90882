"""The dataset card as one HTML page for people, which opens without a network, prints, and fits a phone."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from conf.words import RESEARCH_USE
from conf.writing import atomic_path
from etl.card.counts import describe_left_out, describe_masks, describe_whole
from etl.card.distributions import describe_patients
from etl.card.figures import draw_counts, draw_heat_map, draw_shares
from etl.contract.quarantine import kinds_of
from etl.contract.schema import SPLITS, Card

MAX_SHOWN = 30
"""most findings and quarantine reasons in the figures and first tables; the page says how many there are"""
FILM_SIDE_PX = 256
"""larger films of the contact sheet are reduced to this"""
FILM_JPEG_QUALITY = 85

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["thousands"] = "{:,}".format
_TEMPLATES.filters["sum_of"] = lambda numbers: sum(numbers.values())


@dataclass(frozen=True)
class SheetFilm:
    """One image of the contact sheet."""

    image_id: str
    split: str
    pixels: np.ndarray
    """(S, S) grey or (S, S, 3) RGB, uint8"""
    findings: list[str]
    """findings that are present"""
    boxes: list[tuple[str, float, float, float, float]]
    """finding, then x, y of the upper left corner, width, height as fractions of the square, 0..1"""


def write_card_page(
    path: Path, card: Card, rows: pd.DataFrame, quarantine: pd.DataFrame, sheet: list[SheetFilm]
) -> None:
    """Writes the page, atomically.

    rows: one per image of the table: image_id, patient_id, follow_up, age_years (both nullable), sex, view (None if
    unknown), findings (float32 arrays in the order of card.findings: 1, 0, NaN unknown), split.
    quarantine: image_id, path, reason; the part of a reason before its first colon is its kind. sheet: films to show.
    """
    in_rows = rows.split.value_counts().to_dict()
    assert in_rows == card.images, f"images per split: the rows have {in_rows}, the card says {card.images}"
    totals = {finding: sum(card.positives[split][finding] for split in SPLITS) for finding in card.findings}
    # Most frequent first; sorted() keeps the vocabulary's order for equal counts.
    by_frequency = sorted(card.findings, key=lambda finding: -totals[finding])
    shown = by_frequency[:MAX_SHOWN]
    page = _TEMPLATES.get_template("page.html.j2").render(
        card=card,
        research_use=RESEARCH_USE,
        num_images=len(rows),
        splits=SPLITS,
        is_phantoms=card.of_phantoms,
        data=f"{card.source_name or card.source}, table version {card.delta_version}",
        left_over=card.images_listed - len(rows) - card.images_quarantined - card.images_absent,
        settings=dict(_flatten(card.settings)),
        source_settings={name: dict(_flatten(part["settings"])) for name, part in card.sources.items()},
        max_shown=MAX_SHOWN,
        source_shares={finding: [_share(part, finding) for part in card.sources.values()] for finding in shown},
        left_out=describe_left_out(card.left_out),
        kept_whole=card.kept_whole and describe_whole(card.kept_whole, card.images),
        masks_lacking=describe_masks(card.masks) if card.masks else [],
        totals=totals,
        has_boxes=any(card.boxed.values()),
        percentages={finding: _percentages(card.positives, card.known, finding) for finding in card.findings},
        shown=shown,
        not_shown=by_frequency[MAX_SHOWN:],
        **_draw_findings(card, rows, shown),
        distributions=describe_patients(rows),
        **_group_reasons(quarantine),
        films=[(film, _to_data_uri(film.pixels)) for film in sheet],
    )
    with atomic_path(path) as temporary:
        # A file name that is not UTF-8 arrives with lone surrogates, which UTF-8 cannot encode.
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _flatten(settings: dict, prefix: str = "") -> Iterable[tuple[str, object]]:
    """Nested settings as pairs of a dotted name, such as `quality.min_side_px`, and a value."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _percentages(part: dict, whole: dict, finding: str) -> dict[str, float]:
    """Percent per split; NaN if the whole is 0. From the counts, as the card's own percentages are rounded already."""
    return {
        split: 100 * part[split][finding] / whole[split][finding] if whole[split][finding] else float("nan")
        for split in SPLITS
    }


def _share(part: dict, finding: str) -> float:
    """Percent of a source's images over all splits, as in _percentages. part: of Card.sources."""
    positives, known = (sum(part[what][split][finding] for split in SPLITS) for what in ("positives", "known"))
    return 100 * positives / known if known else float("nan")


def _draw_findings(card: Card, rows: pd.DataFrame, shown: list[str]) -> dict[str, Markup | None]:
    """The figures of the shown findings; None for a figure with nothing to show."""
    percentages = [_percentages(card.positives, card.known, finding) for finding in shown]
    missing = {split: [card.images[split] - card.known[split][finding] for finding in shown] for split in SPLITS}
    together = _co_occurrence(rows, [card.findings.index(finding) for finding in shown])
    pairs = together[~np.eye(len(shown), dtype=bool)]
    return {
        "counts_figure": draw_counts(
            "counts",
            "Bars: images with each finding, per split. The table below has the percentages.",
            shown,
            {split: [card.positives[split][finding] for finding in shown] for split in SPLITS},
            "images with the finding",
        ),
        "shares_figure": draw_shares(
            "shares",
            "Dots: percentage of images with each finding, per split, as in the table below.",
            shown,
            {split: [shares[split] for shares in percentages] for split in SPLITS},
            "% of the split's images whose label is known",
        ),
        "unknown_figure": draw_shares(
            "unknown",
            "Dots: percentage of images whose label is unknown, per finding and split.",
            shown,
            {split: [100 * number / card.images[split] for number in missing[split]] for split in SPLITS},
            "% of the split's images",
        )
        if any(any(numbers) for numbers in missing.values())
        else None,
        "pairs_figure": draw_heat_map(
            "pairs",
            "Heat map: percentage of the images with a row's finding that also have the column's finding.",
            shown,
            together,
        )
        if (pairs > 0).any()
        else None,
    }


def _co_occurrence(rows: pd.DataFrame, columns: list[int]) -> np.ndarray:
    """(columns, columns) percent of the images with the row's finding that also have the column's.

    Only images with a known label for the column's finding count; NaN if there is none.
    """
    labels = np.stack([findings[columns] for findings in rows.findings])
    # Sums of ones are exact in float32 up to 16 million images, and its matrix product is fast.
    present, known = (labels == 1).astype(np.float32), (~np.isnan(labels)).astype(np.float32)
    both, base = present.T @ present, present.T @ known
    return np.divide(100 * both, base, out=np.full_like(both, np.nan), where=base > 0)


def _group_reasons(quarantine: pd.DataFrame) -> dict:
    """Kinds of reasons, most frequent first, with the count and first image of each, and a figure of the counts."""
    kinds = kinds_of(quarantine.reason)
    counts = kinds.value_counts(sort=False).sort_values(ascending=False, kind="stable")
    examples = quarantine[~kinds.duplicated()].set_index(kinds[~kinds.duplicated()])
    reasons = [(kind, count, examples.loc[kind]) for kind, count in counts.head(MAX_SHOWN).items()]
    alt = "Bars: images in quarantine per reason, as in the table below."
    shown = {"quarantine": counts.head(MAX_SHOWN).to_list()}
    figure = draw_counts("reasons", alt, [kind for kind, _, _ in reasons], shown, "images") if reasons else None
    return {"reasons": reasons, "num_reasons": len(counts), "reasons_figure": figure}


def _to_data_uri(pixels: np.ndarray) -> str:
    """The film as a JPEG in a data URI; pixels as in Film."""
    side = min(len(pixels), FILM_SIDE_PX)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    encoded, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, FILM_JPEG_QUALITY])
    assert encoded, f"no JPEG from pixels of shape {small.shape}, {small.dtype}"
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
