"""Exports a network with random weights in every precision, to measure what depends on its layers alone."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from conf.settings import Quality, Training
from inference.candidate.making.export import export_graphs
from inference.candidate.making.quantize import quantize
from inference.model.graphs import save_graph
from inference.model.networks.fitted import FittedModel
from inference.model.networks.served import ServedNetwork
from inference.model.properties import Properties
from jobs.benchmarks.training.fed import NUM_FINDINGS
from training.network.checkpoint import Checkpoint
from training.network.map_grid import measure_map_grid
from training.network.models import build_model

NUM_CALIBRATION_IMAGES = 16
MEAN, DEVIATION = 127.0, 60.0


def export_fresh(model: str, size_px: int, folder: Path) -> None:
    """Fills `folder` with torch/, fp32/, fp16/, onnx/ and int8/ of `model`, a name as in training.model."""
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
    network = ServedNetwork(classifier, nothing, ones, np.zeros(num_features), np.eye(num_features)).eval()
    first, step = measure_map_grid(classifier, size_px)
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
        network=model,
        **lineage,
        ancestors=[],
    )
    shape = (NUM_CALIBRATION_IMAGES, size_px, size_px)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    export_graphs(FittedModel(checkpoint, network, properties), folder, (pixels[:2],))
    save_graph(quantize(folder / "fp32", (pixels,)), folder / "int8")
