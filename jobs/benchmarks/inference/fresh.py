"""Exports a network with random weights in every precision, to measure what depends on its layers alone."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from conf.settings import Quality, Training
from etl.contract.images.pixels import to_square
from etl.phantoms.cohort import draw_cohort
from etl.phantoms.film import render
from inference.candidate.making.export import export_graphs
from inference.candidate.making.quantize import quantize
from inference.model.graphs import save_graph
from inference.model.networks.fitted import FittedModel, build_served
from inference.model.networks.served import FITTED
from inference.model.properties import Properties
from jobs.benchmarks.training.fed import NUM_FINDINGS
from training.network.build import build_model
from training.network.checkpoint import Checkpoint
from training.network.map_grid import measure_map_grid
from training.network.models import XrayClassifier

NUM_CALIBRATION_IMAGES = 16
SEED, MIN_IMAGES, DRAWN_PX = 0, 100, 512
MEAN, DEVIATION = 127.0, 60.0


def export_fresh(
    model: str,
    size_px: int,
    folder: Path,
    num_members: int = 1,
    change: Callable[[XrayClassifier, np.ndarray], None] | None = None,
) -> None:
    """Fills `folder` with torch/, fp32/, fp16/, onnx/ and int8/ of `model`, a name as in training.model.

    num_members: above 1, it is an ensemble of as many such networks. change: changes the weights of a single one; gets
    the films too on which INT8 is calibrated, (films, S, S) uint8.
    """
    classifier = build_model(model, NUM_FINDINGS, MEAN, DEVIATION, size_px=size_px).eval()
    pixels = draw_phantoms(size_px)
    if change is not None:
        change(classifier, pixels)
    findings = [f"finding {number}" for number in range(1, NUM_FINDINGS + 1)]
    lineage = {"run_id": "none", "delta_table_id": "none", "delta_version": 0, "commit": "none"}
    checkpoint = Checkpoint(
        weights=classifier.state_dict(),
        model=model,
        findings=findings,
        size_px=size_px,
        pixel_mean=MEAN,
        pixel_std=DEVIATION,
        channels=1,
        tabular=False,
        epoch=0,
        val_auroc=0.5,
        settings={"training": vars(Training())},
        **lineage,
    )
    nothing, ones = np.zeros(NUM_FINDINGS), np.ones(NUM_FINDINGS)
    num_features = classifier.classifier.in_features
    fitted = {
        name: torch.as_tensor(values, dtype=torch.float32)
        for name, values in zip(FITTED, (nothing, ones, np.zeros(num_features), np.eye(num_features)), strict=True)
    }
    first, step = measure_map_grid(classifier, size_px)
    if num_members > 1:
        # With weights of their own: a graph computes equal parts once.
        others = [
            build_model(model, NUM_FINDINGS, MEAN, DEVIATION, size_px=size_px).state_dict() for _ in range(num_members)
        ]
        votes = [1 / num_members] * NUM_FINDINGS
        members = [
            {"checkpoint": vars(replace(checkpoint, weights=weights)), "shifts": [], "temperatures": [], "votes": votes}
            for weights in others
        ]
        checkpoint = replace(checkpoint, weights={}, members=members)
        # All on one grid, as members of one kind are.
        grids = torch.tensor([[first, step, 1]] * num_members, dtype=torch.float64)
        fitted = {"members": [fitted] * num_members, "grids": grids, "shifts": nothing, "temperatures": ones}
    network = build_served(checkpoint, fitted)
    properties = Properties(
        findings=findings,
        exclusive=False,
        size_px=size_px,
        square="pad",
        intensity="none",
        quality=asdict(Quality()),
        shifts=nothing.tolist(),
        temperatures=ones.tolist(),
        thresholds={"youden": [0.5] * NUM_FINDINGS},
        # No image is unfamiliar to this network.
        distance_threshold=1e9,
        map_first=first,
        map_step=step,
        exact_maps=num_members == 1,
        members=[{"network": model, "run_id": "none", "votes": {}}] * num_members if num_members > 1 else [],
        network=model,
        **lineage,
        ancestors=[],
    )
    export_graphs(FittedModel(checkpoint, network, properties), folder, (pixels[:2],))
    save_graph(quantize(folder / "fp32", (pixels,)), folder / "int8")


def draw_phantoms(size_px: int) -> np.ndarray:
    """NUM_CALIBRATION_IMAGES phantoms, (films, S, S) uint8."""
    cohort = draw_cohort(SEED, MIN_IMAGES)[:NUM_CALIBRATION_IMAGES]
    drawn = ((SEED, study.patient, study.follow_up) for study in cohort)
    films = (
        render(seed, study.female, study.ap, study.findings, DRAWN_PX)[0]
        for seed, study in zip(drawn, cohort, strict=True)
    )
    return np.stack([to_square(film, size_px) for film in films])
