"""Pictures of suspects: the film, and the film with the heat map of the finding, as JPEGs in data URIs."""

import base64
import json

import cv2
import numpy as np
import pandas as pd
import torch

from conf.workspace import Workspace
from etl.contract.schema import image_column
from etl.contract.table import read_pixels
from etl.contract.version import TableVersion
from training.network.attributes import encode_attributes
from training.network.checkpoint import BEST, Checkpoint
from training.network.heat import above_threshold, class_log_odds, heat_of_square, overlay
from training.network.map_grid import measure_map_grid
from training.network.models import XrayClassifier
from training.suspects.predicted import Predicted

SIDE_PX = 192
"""side of a thumbnail; smaller squares are shown as they are stored"""
JPEG_QUALITY = 80
OPERATING_POINT = "youden"
"""the threshold of evaluation.json from which heat maps are painted, as in service"""


def show_films(table: TableVersion, suspects: pd.DataFrame) -> dict[str, str]:
    """Image -> its thumbnail. suspects: the ones to show, as in Found."""
    sizes = sorted(table.card.sizes_px)
    size = next((side for side in sizes if side >= SIDE_PX), sizes[-1])
    return {image: _as_uri(pixels) for image, pixels in _read_squares(table, suspects, size).items()}


def show_heat_maps(
    table: TableVersion, suspects: pd.DataFrame, predicted: Predicted, workspaces: list[Workspace]
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Image and finding -> the thumbnail with the heat map over it, and sentences on those without one.

    Each film is shown to the first training that predicts it, which has not learned from its label. suspects: as in
    show_films. An ensemble, and a training without a checkpoint or with a size that the table lacks, have no heat maps.
    """
    maps, notes = {}, []
    by = predicted.by[suspects["place"]]
    for number in np.unique(by):
        workspace, part = workspaces[number], suspects[by == number]
        opened = _open(workspace, table)
        if isinstance(opened, str):
            notes.append(f"no heat maps by {workspace.root}: {opened}")
            continue
        if not opened[1].exact_maps:
            notes.append(f"the heat maps by {workspace.root} only compare places, because a class token decides")
        maps |= _paint(*opened, workspace, table, part, predicted)
    return maps, notes


def _open(workspace: Workspace, table: TableVersion) -> tuple[Checkpoint, XrayClassifier] | str:
    """A training's best checkpoint and model, or why it has no heat maps for films of this table."""
    path = workspace.checkpoints / BEST
    if not path.exists():
        return "it has no checkpoint"
    checkpoint, report = Checkpoint.load(path), json.loads(workspace.evaluation.read_text(encoding="utf-8"))
    trained_on, evaluated_on = (
        [table[key] for key in ("delta_table_id", "delta_version")] for table in (vars(checkpoint), report)
    )
    if checkpoint.members:
        return "it is an ensemble, which has no network of its own"
    if trained_on != evaluated_on:
        return "its checkpoint is of another training than its predictions"
    if checkpoint.size_px not in table.card.sizes_px:
        return f"it takes squares of {checkpoint.size_px} px, which the table does not have"
    return checkpoint, checkpoint.build()


def _paint(
    checkpoint: Checkpoint,
    model: XrayClassifier,
    workspace: Workspace,
    table: TableVersion,
    suspects: pd.DataFrame,
    predicted: Predicted,
) -> dict[tuple[str, str], str]:
    """The pictures of one training. Maps are calibrated as its logits are, and measured from its threshold."""
    report, size = json.loads(workspace.evaluation.read_text(encoding="utf-8")), checkpoint.size_px
    thresholds = report["thresholds"][OPERATING_POINT]["calibrated_probability"]
    first, step = measure_map_grid(model, size)
    squares, painted = _read_squares(table, suspects, size), {}
    for place, wanted in suspects.groupby("place"):
        row = predicted.rows.iloc[place]
        pixels, attributes = squares[row["image_id"]], None
        if checkpoint.tabular:
            # A column of numbers or words that lacks some has NaN for them.
            age, sex, view = (row[name] if pd.notna(row[name]) else None for name in ("age_years", "sex", "view"))
            attributes = torch.from_numpy(encode_attributes([age], [sex], [view]))
        with torch.inference_mode():
            _, maps = model.features_and_maps(torch.from_numpy(pixels.copy())[None], attributes)
        for finding in wanted["finding"]:
            index, own = checkpoint.findings.index(finding), maps[0].numpy()
            # null: nothing is known of such a finding, and nothing was fitted.
            shift, temperature = report["logit_shifts"][finding] or 0, report["temperatures"][finding] or 1
            own = (own + shift) / temperature
            logits = class_log_odds(own, index) if checkpoint.exclusive else own[index]
            evidence = above_threshold(logits, thresholds[finding])
            painted[row["image_id"], finding] = _as_uri(overlay(pixels, heat_of_square(evidence, size, first, step)))
    return painted


def _read_squares(table: TableVersion, suspects: pd.DataFrame, size: int) -> dict[str, np.ndarray]:
    """Image -> its stored square, (size, size) or (size, size, 3) uint8."""
    images = suspects.drop_duplicates("image_id")[["image_id", "file"]]
    shape = (size, size) if table.card.channels == 1 else (size, size, 3)
    return {
        image: np.frombuffer(content, np.uint8).reshape(shape)
        for image, content in read_pixels(images, image_column(size)).items()
    }


def _as_uri(pixels: np.ndarray) -> str:
    """pixels: (S, S) grey or (S, S, 3) RGB, uint8."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    side = min(len(pixels), SIDE_PX)
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    encoded, content = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded, f"no JPEG from pixels of shape {small.shape}, {small.dtype}"
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
