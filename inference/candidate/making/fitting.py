"""Adds what a trained classifier needs before it is served: calibration, thresholds and familiarity."""

from contextlib import closing

import numpy as np
import pandas as pd
import torch

from conf.progress import Progress
from conf.settings import Training, restore
from conf.words import SEXES, VIEWS
from etl.contract.schema import Card
from etl.contract.table import read_labels
from inference.candidate.making.familiarity import distance_threshold, fit_familiarity
from inference.model.network import FittedModel, ServedNetwork
from inference.model.properties import ATTRIBUTES, UNKNOWN, Properties, preparation_of
from training.loop.loss import log_odds, loss_weights
from training.loop.trainer import inputs
from training.measures.calibration import Calibration, fit_calibration
from training.network.checkpoint import Checkpoint
from training.network.map_grid import measure_map_grid
from training.network.models import XrayClassifier, pool
from training.reading.batches import read_batches
from training.reading.plan import Split

# Enough to estimate the covariance of 2,048 features, and takes minutes instead of an hour on real data.
MAX_TRAINING_IMAGES = 5000
READ_BATCH = 32


def fit_served(checkpoint: Checkpoint, card: Card, train: Split, val: Split, seed: int) -> FittedModel:
    """Calibrates on the validation split, and fits familiarity on at most MAX_TRAINING_IMAGES training images.

    card: the card of the table version that the checkpoint was trained on. seed: chooses the training images.
    train, val: with attributes if the model takes them.
    """
    classifier = checkpoint.build()
    labels, logits, val_features = predict_features(classifier, val, val.rows, None)
    pos_weight = loss_weights(card, restore(Training, checkpoint.settings["training"])).numpy()
    calibration = fit_calibration(labels, logits, pos_weight)
    _, _, features = predict_features(classifier, train, MAX_TRAINING_IMAGES, seed)
    familiarity = fit_familiarity(features)
    threshold = distance_threshold(familiarity.distances(val_features))
    parts = calibration.shifts, calibration.temperatures, familiarity.centre, familiarity.whitening
    network = ServedNetwork(classifier, *parts).eval()
    grid = measure_map_grid(classifier, checkpoint.size_px)
    attributes = describe_attributes(pd.concat(read_labels(train.files))) if checkpoint.tabular else {}
    properties = _properties(checkpoint, card, calibration, threshold, grid, attributes, classifier.exact_maps)
    return FittedModel(checkpoint, network, properties)


def predict_features(
    classifier: XrayClassifier, split: Split, num_images: int, seed: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns labels and logits, (images, findings) float32, and pooled features, (images, features) float32.

    Covers the first num_images images of the split, in an order drawn from `seed`, or in the table's order if seed is
    None.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    missing = min(num_images, split.rows)
    with (
        torch.inference_mode(),
        closing(read_batches(split, READ_BATCH, shuffle_seed=seed)) as batches,
        Progress(f"features of the {split.name} split", missing) as bar,
    ):
        for batch in batches:
            features, maps = classifier.features_and_maps(*inputs(batch.pixels[:missing], batch.attributes[:missing]))
            logits = pool(maps, classifier.sharpness)
            logits = log_odds(logits) if classifier.exclusive else logits
            parts.append((batch.labels[:missing].numpy(), logits.numpy(), features.numpy()))
            missing -= len(features)
            bar.update(len(features))
            if missing == 0:
                break
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def describe_attributes(rows: pd.DataFrame) -> dict:
    """Properties.attributes of a network with a branch for age, sex and view. rows: those of the training split."""
    known = rows.age_years.dropna()
    ages = {"low": float(known.min()), "high": float(known.max())} if len(known) else {"low": None, "high": None}
    words = {"sex": SEXES, "view": VIEWS}
    counts = {
        name: {word: int((rows[name] == word).sum()) for word in known_words}
        | {"unknown": int(rows[name].isna().sum())}
        for name, known_words in words.items()
    }
    return {
        "columns": list(ATTRIBUTES),
        "codes": {name: list(known_words) for name, known_words in words.items()},
        "unknown": UNKNOWN,
        "trained_on": {"age_years": ages | {"unknown": len(rows) - len(known)}, **counts},
    }


def _properties(
    checkpoint: Checkpoint,
    card: Card,
    calibration: Calibration,
    threshold: float,
    grid: tuple[float, float],
    attributes: dict,
    exact_maps: bool,
) -> Properties:
    thresholds = {name: calibration.probabilities(values) for name, values in calibration.thresholds.items()}
    return Properties(
        findings=checkpoint.findings,
        exclusive=checkpoint.exclusive,
        size_px=checkpoint.size_px,
        **preparation_of(card.settings),
        quality=card.settings["quality"],
        dicom=card.settings.get("dicom", {}),
        channels=checkpoint.channels,
        attributes=attributes,
        shifts=calibration.shifts.tolist(),
        temperatures=calibration.temperatures.tolist(),
        thresholds={
            name: [None if np.isnan(value) else float(value) for value in values] for name, values in thresholds.items()
        },
        distance_threshold=threshold,
        map_first=grid[0],
        map_step=grid[1],
        exact_maps=exact_maps,
        network=checkpoint.model,
        run_id=checkpoint.run_id,
        delta_table_id=checkpoint.delta_table_id,
        delta_version=checkpoint.delta_version,
        commit=checkpoint.commit,
        ancestors=checkpoint.ancestors,
    )
