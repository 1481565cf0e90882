"""Boxes in pixels of a film, as shares of the square that the ETL stores."""

from collections.abc import Sequence

from upath import UPath

from conf.errors import InputError

TOLERANCE_PX = 1
"""by which a box may exceed its film: a pixel is lost in rounding, or counted from 1"""


def read_box(path: UPath, line: int, cells: Sequence[str], expected: str) -> list[float] | None:
    """Left, top, right and bottom, in pixels, from cells of a table; None if all are empty.

    line: from 0 below the header, as the index of read_table. expected: the names of the columns. Raises InputError for
    cells that are no numbers, a box before the film's first pixel, and one without an area.
    """
    if not any(cells):
        return None
    try:
        left, top, right, bottom = box = [float(cell) for cell in cells]
    except ValueError:
        left, top, right, bottom = box = [float("nan")] * 4
    if not (-TOLERANCE_PX <= left < right < float("inf") and -TOLERANCE_PX <= top < bottom < float("inf")):
        raise InputError(
            f"{path} line {line + 2}: the box is {', '.join(cells)}, expected {expected} in pixels of the film, or "
            "empty cells: fix the row"
        )
    return box


def place_box(
    path: UPath, line: int, box: Sequence[float], width_px: int, height_px: int, square: str
) -> tuple[float, float, float, float]:
    """Left, top, width and height as shares of the stored square's side, 0..1.

    box: from read_box. width_px, height_px: of the film. square: settings.square, `pad` (as to_square pads) or
    `stretch`. Raises InputError for a box that lies outside of the film.
    """
    left, top, right, bottom = box
    if right > width_px + TOLERANCE_PX or bottom > height_px + TOLERANCE_PX:
        raise InputError(
            f"{path} line {line + 2}: the box from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) exceeds its film of "
            f"{width_px}x{height_px} pixels: the table and the film do not belong together, or the film is a smaller "
            "copy; fix the row or the size, or remove the film from the source"
        )
    left, right = max(left, 0), min(right, width_px)
    top, bottom = max(top, 0), min(bottom, height_px)
    if square == "pad":
        side = max(width_px, height_px)
        shift_x, shift_y = (side - width_px) // 2, (side - height_px) // 2
        return (left + shift_x) / side, (top + shift_y) / side, (right - left) / side, (bottom - top) / side
    return left / width_px, top / height_px, (right - left) / width_px, (bottom - top) / height_px
