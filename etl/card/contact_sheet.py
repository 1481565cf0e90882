"""Chooses a few films of the table, with their findings and boxes, for people to look at."""

import numpy as np
import pandas as pd

from etl.card.page import SheetFilm
from etl.contract.schema import Card, image_column
from etl.contract.table import read_pixels

NUM_FILMS = 24
# Films are shown small, so the smallest stored size of at least this is enough.
ENOUGH_PX = 128


def choose_films(card: Card, rows: pd.DataFrame) -> list[SheetFilm]:
    """Up to NUM_FILMS films, evenly over the findings, films with boxes first.

    rows: rows of the newest version, as in Committed. Reads the pixels of the chosen films only.
    """
    chosen = _choose(rows, len(card.findings))
    size = min((s for s in card.sizes_px if s >= ENOUGH_PX), default=max(card.sizes_px))
    shape = (size, size) if card.channels == 1 else (size, size, 3)
    pixels = read_pixels(chosen, image_column(size))
    films = []
    for row in chosen.itertuples():
        boxes = np.asarray(row.boxes, np.float64).reshape(-1, 5)
        films.append(
            SheetFilm(
                image_id=row.image_id,
                split=row.split,
                pixels=np.frombuffer(pixels[row.image_id], np.uint8).reshape(shape),
                findings=[name for name, value in zip(card.findings, row.findings, strict=True) if value == 1],
                boxes=[(card.findings[int(box[0])], *box[1:].tolist()) for box in boxes],
            )
        )
    return films


def _choose(rows: pd.DataFrame, num_findings: int) -> pd.DataFrame:
    """Takes a row of each finding and one without any in turn, up to NUM_FILMS; the same for the same table."""
    order = rows.sample(frac=1, random_state=0)
    order = order.assign(has_boxes=order.boxes.map(len) > 0).sort_values("has_boxes", ascending=False, kind="stable")
    present = np.stack(order.findings.to_list()) == 1
    queues = [list(np.flatnonzero(present[:, index])) for index in range(num_findings)]
    queues.append(list(np.flatnonzero(~present.any(axis=1))))
    taken: dict[int, None] = {}
    while len(taken) < NUM_FILMS and any(queues):
        for queue in queues:
            if queue and len(taken) < NUM_FILMS:
                taken[queue.pop(0)] = None
    return order.iloc[list(taken)]
