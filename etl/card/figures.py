"""Figures of the dataset card: inline SVGs that take their ink from the page, so that they suit light and dark mode.

Every figure is drawn from a few counts, never from rows; the page says which data and splits it shows.
"""

import io
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from etl.contract.schema import SPLITS

# Blue, orange and teal of Paul Tol's "vibrant" scheme: distinct for the colour-blind, on white and on black.
SPLIT_COLOURS = {"train": "#0077BB", "val": "#EE7733", "test": "#009988"}
SPLIT_MARKERS = {"train": "o", "val": "D", "test": "s"}
NEUTRAL_COLOUR = "#8A8F98"
# Placeholder for the page's text colour while matplotlib draws.
INK = "#010203"
WIDTH_INCHES = 4.0
"""288 points of SVG, about a phone's width, where 8-point text is still readable"""
MAX_NUMBERED_CELLS = 20
"""most findings for which the cells of a heat map show their numbers"""
MAX_NAME_LENGTH = 26
"""most characters of a name in a figure; the page's tables have the full name"""

_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "card",
}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def draw_counts(name: str, alt: str, labels: list[str], counts: dict[str, list[int]], unit: str) -> Markup:
    """Horizontal bars with their numbers, one group per label, from top to bottom.

    counts: split (or any single name) -> a number per label. name: unique on the page. alt: text for screen readers.
    """
    with matplotlib.rc_context(_STYLE):
        row_inches = 0.1 * len(counts) + 0.11
        figure, axes = _axes(row_inches * len(labels) + 0.75)
        places, height = np.arange(len(labels)), 0.84 / len(counts)
        for index, (series, numbers) in enumerate(counts.items()):
            offset = (index - (len(counts) - 1) / 2) * height
            colour = SPLIT_COLOURS.get(series, NEUTRAL_COLOUR)
            bars = axes.barh(places + offset, numbers, height * 0.86, color=colour, label=series)
            axes.bar_label(bars, [f"{number:,}" for number in numbers], padding=2, fontsize=6.5)
        axes.set_yticks(places, [shorten(label) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        highest = max(max(numbers) for numbers in counts.values())
        # Room at the right for the longest number.
        axes.set_xlim(0, max(highest, 1) * 1.2)
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(matplotlib.ticker.StrMethodFormatter("{x:,.0f}"))
        axes.set_xlabel(unit)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        if len(counts) > 1:
            _legend(figure)
        return _to_markup(figure, name, alt)


def draw_shares(name: str, alt: str, labels: list[str], shares: dict[str, list[float]], unit: str) -> Markup:
    """A dot per label and split, from top to bottom. shares: split -> percent per label; NaN is left out."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(0.21 * len(labels) + 0.75)
        places = np.arange(len(labels))
        for index, (split, percents) in enumerate(shares.items()):
            # Dots of a row are offset, so that equal ones do not hide each other.
            heights = places + (index - (len(shares) - 1) / 2) * 0.26
            colour, marker = SPLIT_COLOURS[split], SPLIT_MARKERS[split]
            axes.plot(percents, heights, marker, color=colour, markersize=4, label=split, clip_on=False)
        axes.set_yticks(places, [shorten(label) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        highest = np.nanmax([0, *np.concatenate(list(shares.values()))])
        axes.set_xlim(0, max(highest * 1.05, 1))
        axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_xlabel(unit)
        # Keeps the labels clear of the dots at zero.
        axes.tick_params(axis="y", length=0, pad=7)
        axes.grid()
        _legend(figure)
        return _to_markup(figure, name, alt)


def draw_groups(
    name: str, alt: str, categories: list[str], panels: dict[str, dict[str, list[float]]], xlabel: str, ylabel: str
) -> Markup:
    """Vertical bars, one group per category, in panels that are stacked and share one scale.

    panels: title ("" for none) -> split -> percent per category.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, 1.55 * len(panels) + 0.85), layout="constrained")
        every = np.atleast_1d(figure.subplots(len(panels), sharex=True, sharey=True))
        places = np.arange(len(categories))
        for axes, (title, shares) in zip(every, panels.items(), strict=True):
            width = 0.8 / len(shares)
            for index, (split, percents) in enumerate(shares.items()):
                offset = (index - (len(shares) - 1) / 2) * width
                axes.bar(places + offset, percents, width * 0.9, color=SPLIT_COLOURS[split], label=split)
            axes.set_title(title, fontsize=8, loc="left")
            axes.set_xticks(places, categories, fontsize=min(8, 68 / len(categories)))
            axes.set_xlim(-0.6, len(categories) - 0.4)
            axes.tick_params(axis="x", length=0)
            axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, steps=[1, 2, 5, 10]))
            axes.grid(axis="y")
        every[-1].set_xlabel(xlabel)
        figure.supylabel(ylabel, fontsize=8)
        _legend(figure, *every[0].get_legend_handles_labels())
        return _to_markup(figure, name, alt)


def draw_heat_map(name: str, alt: str, labels: list[str], shares: np.ndarray) -> Markup:
    """A square heat map with rows and columns in the order of `labels`; the diagonal is grey.

    shares: (labels, labels) percent; NaN if there are no images to take a share of.
    """
    number = len(labels)
    others = np.where(np.eye(number, dtype=bool), np.nan, shares)
    top = max(np.nanmax(others, initial=0), 1e-9)
    side = WIDTH_INCHES if number <= 6 else min(1.7 + 0.36 * number, 7.4)
    numbered = number <= MAX_NUMBERED_CELLS
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(side if numbered else 1.15 * side, side), layout="constrained")
        axes = figure.subplots()
        blues = matplotlib.colormaps["Blues"]
        cells = axes.pcolormesh(others, cmap=blues, vmin=0, vmax=top)
        axes.bar(np.arange(number) + 0.5, 1, 1, np.arange(number), color=INK, alpha=0.12)
        for row, column in np.ndindex(number, number):
            share = shares[row, column]
            text = "\N{EN DASH}" if np.isnan(share) else f"{share:.0f}" if numbered else ""
            # The cells keep their colours in dark mode, so their numbers do too.
            colour = "#FFFFFF" if share > 0.55 * top else "#1B2733"
            if row == column or np.isnan(share):
                colour = INK
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color=colour)
        names = [shorten(label) for label in labels]
        centres = np.arange(number) + 0.5
        axes.set_xticks(centres, names, rotation=90)
        axes.set_yticks(centres, names)
        axes.tick_params(length=0)
        axes.set(xlim=(0, number), ylim=(number, 0), aspect="equal")
        axes.set_ylabel("of the images with ...")
        axes.set_xlabel("... the percentage that also have")
        axes.xaxis.set(label_position="top", ticks_position="top")
        axes.spines[:].set_visible(False)
        if not numbered:
            figure.colorbar(cells, shrink=0.5, aspect=30, label="percent")
        return _to_markup(figure, name, alt)


def shorten(name: str) -> str:
    """A name for a figure: one line of at most MAX_NAME_LENGTH characters, none of them control characters."""
    printable = "".join(letter if letter.isprintable() else " " for letter in name)
    return printable if len(printable) <= MAX_NAME_LENGTH else printable[: MAX_NAME_LENGTH - 1] + "…"


def _axes(height_inches: float) -> tuple[Figure, matplotlib.axes.Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, *handles_and_labels: list) -> None:
    figure.legend(
        *handles_and_labels, loc="outside upper center", ncols=len(SPLITS), frameon=False, handlelength=1, borderpad=0.1
    )


def _to_markup(figure: Figure, name: str, alt: str) -> Markup:
    """The figure as an <svg> element: `name` makes its ids unique, the page sets its ink, metadata is removed."""
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        # Chinese names, for example: the browser has the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(drawn, format="svg", transparent=True)
    svg = ElementTree.fromstring(drawn.getvalue())
    for metadata in svg.findall(f"{{{_SVG}}}metadata"):
        svg.remove(metadata)
    for element in svg.iter():
        for key, value in element.items():
            if key == "id":
                value = f"{name}-{value}"
            elif key == f"{{{_XLINK}}}href":
                value = value.replace("#", f"#{name}-", 1)
            element.set(key, value.replace("url(#", f"url(#{name}-").replace(INK, "currentColor"))
    for key in ("width", "height", "version"):
        svg.attrib.pop(key, None)
    svg.set("role", "img")
    svg.set("aria-label", alt)
    return Markup(ElementTree.tostring(svg, encoding="unicode"))
