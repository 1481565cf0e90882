"""Exports a network with random weights in every precision, to measure what depends on its layers alone."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from conf.settings import Quality, Training
from inference.candidate.making.export import export_graphs
from inference.candidate.making.quantize import quantize
from inference.model.graphs import save_graph
from inference.model.networks.fitted import FittedModel, build_served
from inference.model.networks.served import FITTED
from inference.model.properties import Properties
from jobs.benchmarks.training.fed import NUM_FINDINGS
from training.network.checkpoint import Checkpoint
from training.network.map_grid import measure_map_grid
from training.network.models import build_model

NUM_CALIBRATION_IMAGES = 16
MEAN, DEVIATION = 127.0, 60.0


def export_fresh(model: str, size_px: int, folder: Path, num_members: int = 1) -> None:
    """Fills `folder` with torch/, fp32/, fp16/, onnx/ and int8/ of `model`, a name as in training.model.

    num_members: above 1, it is an ensemble of as many such networks.
    """
    classifier = build_model(model, NUM_FINDINGS, MEAN, DEVIATION, size_px=size_px).eval()
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
    shape = (NUM_CALIBRATION_IMAGES, size_px, size_px)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    export_graphs(FittedModel(checkpoint, network, properties), folder, (pixels[:2],))
    save_graph(quantize(folder / "fp32", (pixels,)), folder / "int8")
