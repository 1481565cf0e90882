"""Paints films with heat maps as PNG files for people: chooses the findings, writes the caption, names the files."""

import hashlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from conf.words import RESEARCH_USE
from conf.writing import atomic_path
from etl.contract.clutter import heatmap_name
from inference.files.answer_formats import printable
from inference.film.answers import Finding, Findings
from inference.film.films import Film
from inference.film.heatmap import boxes_on_film, encode_png, evidence_of, heat_of
from inference.model.properties import Properties
from training.network.heat import overlay

SHOWN_PX = 1024
"""longer side of the painted film"""
# Narrowest picture, so that the caption fits below a narrow film.
MIN_WIDTH_PX = 720
MARGIN_PX, HEADING_PX, TEXT_PX = 14, 28, 17
LINE_HEIGHT, SCALE_PX = 1.35, 160
BACKGROUND, MIDDLE_GREY, TEXT_GREY, HEADING_GREY = 18, 110, 165, 240
# How much of the film's and of the finding's name goes into the name of the picture, which may have 255 bytes.
MAX_BYTES, MAX_CHARACTERS = 100, 40


def worth_painting(findings: Findings) -> list[int]:
    """Indices of the called findings, or of the one nearest to its threshold; none for an unfamiliar image."""
    called = [index for index, finding in enumerate(findings.findings) if finding.called]
    if called or not findings.familiar:
        return called
    return [max(range(len(findings.findings)), key=lambda index: _odds_to_threshold(findings.findings[index]))]


def paint_finding(
    film: Film,
    maps: np.ndarray,
    index: int,
    finding: Finding,
    properties: Properties,
    operating_point: str,
    boxes: list[list[float]],
    model: str,
) -> bytes:
    """The film with the heat map of one finding and a caption, as a PNG file.

    film: with Film.shown. maps: (findings, s, s) float32. boxes: as kept with the
    model (shares of the square), of this finding. model: name, version and precision, and what it got besides the
    pixels, for the caption.
    """
    height, width = film.shown.shape[:2]
    heat = heat_of(evidence_of(maps, index, properties, operating_point), width, height, properties, film.crop)
    placed = boxes_on_film(boxes, film.width_px, film.height_px, properties, film.crop)
    picture = overlay(film.shown, heat, boxes=placed)
    threshold = "no threshold" if finding.threshold is None else f"threshold {finding.threshold:.3f}"
    called = f" · {finding.answer}" if finding.answer else " · called" if finding.present else " · not called"
    heading = f"{finding.name} {finding.probability:.3f} ({threshold}){called}"
    what = "evidence for the finding: clear at its threshold and below"
    if not properties.exact_maps:
        what = "relative evidence, patch against patch: clear at the threshold and below"
    if boxes:
        what += " · boxes: known places"
    return encode_png(_with_caption(picture, heading, what, model))


def write_overlay(content: bytes, folder: Path, path: str, finding: str) -> Path:
    """Puts the picture of one finding of the file at `path` into `folder`, under a name of its own."""
    source = Path(path)
    digest = hashlib.sha256(str(source.absolute()).encode(errors="surrogateescape")).hexdigest()[:10]
    film = printable(source.name)[:MAX_CHARACTERS].encode()[:MAX_BYTES].decode(errors="ignore")
    quoted = quote(finding, safe=" ()+")
    if len(quoted) > MAX_BYTES:
        quoted = hashlib.sha256(finding.encode()).hexdigest()[:10]
    name = heatmap_name(film, digest, quoted)
    with atomic_path(folder / name) as temporary:
        temporary.write_bytes(content)
    return folder / name


def _odds_to_threshold(finding: Finding) -> float:
    """Log odds of the finding to its threshold; the smallest of all if it has no threshold."""
    if finding.threshold is None:
        return finding.probability - 2
    odds = finding.probability / max(1 - finding.probability, 1e-9)
    return odds / max(finding.threshold / max(1 - finding.threshold, 1e-9), 1e-9)


def _with_caption(picture: np.ndarray, heading: str, what: str, model: str) -> np.ndarray:
    """The picture over a dark strip of three lines, the second after the scale of colours, (h, w, 3) uint8 RGB."""
    height, width = picture.shape[:2]
    lines = [
        (heading, HEADING_PX, HEADING_GREY),
        (what, TEXT_PX, TEXT_GREY),
        (f"{model} · {RESEARCH_USE}", TEXT_PX, TEXT_GREY),
    ]
    strip = 2 * MARGIN_PX + sum(round(LINE_HEIGHT * size) for _, size, _ in lines)
    page = Image.new("RGB", (max(width, MIN_WIDTH_PX), height + strip), (BACKGROUND,) * 3)
    page.paste(Image.fromarray(picture), ((page.width - width) // 2, 0))
    draw, top = ImageDraw.Draw(page), height + MARGIN_PX
    scale = np.tile(np.linspace(0, 1, SCALE_PX, dtype=np.float32), (TEXT_PX, 1))
    page.paste(
        Image.fromarray(overlay(np.full_like(scale, MIDDLE_GREY, np.uint8), scale)),
        (MARGIN_PX, top + round(LINE_HEIGHT * HEADING_PX) + 2),
    )
    for text, size, grey in lines:
        left = 2 * MARGIN_PX + SCALE_PX if text == what else MARGIN_PX
        share = min(1, (page.width - left - MARGIN_PX) / max(ImageFont.load_default(size).getlength(text), 1))
        draw.text((left, top), text, (grey,) * 3, ImageFont.load_default(size * share))
        top += round(LINE_HEIGHT * size)
    return np.asarray(page)
