"""Adds what a trained classifier needs before it is served: calibration, thresholds and familiarity."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from conf.progress import Progress
from conf.settings import Training, restore
from conf.words import SEXES, VIEWS
from etl.contract.schema import Card
from etl.contract.table import read_labels
from inference.candidate.making.familiarity import distance_threshold, fit_familiarity
from inference.candidate.measuring.evaluate import score_split
from inference.model.graphs import Answer
from inference.model.networks.ensemble import CALIBRATION, members_of
from inference.model.networks.fitted import FittedModel, build_served
from inference.model.properties import ATTRIBUTES, UNKNOWN, Properties, preparation_of
from training.loop.loss import log_odds, loss_weights
from training.loop.trainer import inputs
from training.measures.calibration import Calibration, fit_calibration
from training.measures.classes import class_log_odds
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
    if checkpoint.members:
        return _fit_ensemble(checkpoint, card, train, val, seed)
    classifier = checkpoint.build()
    labels, logits, val_features = predict_features(classifier, val, val.rows, None)
    pos_weight = loss_weights(card, restore(Training, checkpoint.settings["training"])).numpy()
    calibration = fit_calibration(labels, logits, pos_weight, checkpoint.exclusive)
    _, _, features = predict_features(classifier, train, MAX_TRAINING_IMAGES, seed)
    familiarity = fit_familiarity(features)
    threshold = distance_threshold(familiarity.distances(val_features))
    grid = measure_map_grid(classifier, checkpoint.size_px)
    properties = _properties(checkpoint, card, train, calibration, threshold, grid, classifier.exact_maps)
    fitted = {"shifts": calibration.shifts, "temperatures": calibration.temperatures, **vars(familiarity)}
    return FittedModel(checkpoint, build_served(checkpoint, fitted), properties)


def _fit_ensemble(checkpoint: Checkpoint, card: Card, train: Split, val: Split, seed: int) -> FittedModel:
    """Each member keeps the calibration of its own evaluation; the vote is calibrated once more."""
    members, grids = [], []
    for member in members_of(checkpoint)[0]:
        classifier = Checkpoint(**member["checkpoint"]).build()
        _, _, features = predict_features(classifier, train, MAX_TRAINING_IMAGES, seed)
        members.append({name: member[name] for name in CALIBRATION} | vars(fit_familiarity(features)))
        cells = classifier.feature_map(*classifier.example_batch(1, checkpoint.size_px)[:1]).shape[-1]
        grids.append([*measure_map_grid(classifier, checkpoint.size_px), cells])
    num_findings = len(checkpoint.findings)
    fitted = {"members": members, "grids": torch.tensor(grids, dtype=torch.float64)}
    plain = fitted | {"shifts": np.zeros(num_findings), "temperatures": np.ones(num_findings)}
    network = build_served(checkpoint, plain)
    grid = tuple(grids[network.finest][:2])
    uncalibrated = Calibration(plain["shifts"], plain["temperatures"], {}, checkpoint.exclusive)
    properties = _properties(checkpoint, card, train, uncalibrated, 0.0, grid, False)

    def predict(*inputs: np.ndarray) -> Answer:
        with torch.inference_mode():
            return Answer(*(part.numpy() for part in network.evidence(*map(torch.from_numpy, inputs))))

    scored = score_split({"logits": predict}, val, READ_BATCH, properties)
    logits = scored.probabilities["logits"]
    logits = class_log_odds(logits) if checkpoint.exclusive else logits
    calibration = fit_calibration(scored.labels, logits, np.ones(num_findings), checkpoint.exclusive)
    threshold = distance_threshold(scored.distances["logits"])
    fitted |= {"shifts": calibration.shifts, "temperatures": calibration.temperatures}
    properties = replace(properties, **_calibrated(calibration), distance_threshold=threshold)
    return FittedModel(checkpoint, build_served(checkpoint, fitted), properties)


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
            # A member of an ensemble may be without a branch for the attributes that others take.
            attributes = (
                batch.attributes[:missing] if classifier.tabular is not None else batch.attributes[:missing, :0]
            )
            features, maps = classifier.features_and_maps(*inputs(batch.pixels[:missing], attributes))
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
    train: Split,
    calibration: Calibration,
    threshold: float,
    grid: tuple[float, float],
    exact_maps: bool,
) -> Properties:
    return Properties(
        findings=checkpoint.findings,
        exclusive=checkpoint.exclusive,
        size_px=checkpoint.size_px,
        **preparation_of(card.settings, card.lungs),
        quality=card.settings["quality"],
        dicom=card.settings.get("dicom", {}),
        channels=checkpoint.channels,
        attributes=describe_attributes(pd.concat(read_labels(train.files))) if checkpoint.tabular else {},
        **_calibrated(calibration),
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
        members=[_describe_member(member) for member in checkpoint.members],
    )


def _calibrated(calibration: Calibration) -> dict:
    """The properties that depend on it."""
    return {
        "shifts": calibration.shifts.tolist(),
        "temperatures": calibration.temperatures.tolist(),
        "thresholds": {
            name: [None if np.isnan(value) else float(value) for value in values]
            for name, values in calibration.threshold_probabilities.items()
        },
    }


def _describe_member(member: dict) -> dict:
    votes = dict(zip(member["checkpoint"]["findings"], member["votes"], strict=True))
    return {"network": member["checkpoint"]["model"], "run_id": member["checkpoint"]["run_id"], "votes": votes}
