"""The baseline without a neural network: a logistic regression on thumbnails for each finding."""

from contextlib import closing

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from inference.model.graphs import Answer
from training.reading.batches import read_batches
from training.reading.plan import Split

THUMBNAIL_PX = 16
# Enough to fit 256 weights (768 of colour images), and takes seconds instead of minutes on real data.
MAX_ROWS = 20_000
READ_BATCH = 64
# Inverse strength of the L2 penalty. It is small because some findings have a handful of positives for 256 weights.
INVERSE_PENALTY = 0.01


class ThumbnailBaseline:
    """Logistic regression on 16x16 area averages (of each colour), standardised over the training split."""

    def __init__(self, split: Split, seed: int):
        """Fits on the training split, at most MAX_ROWS images in the order of `seed`; unknown labels are left out."""
        features, labels = _read_features(split, seed)
        self.scaler = StandardScaler().fit(features)
        features = self.scaler.transform(features)
        self.models = [_fit(features, labels[:, column]) for column in range(labels.shape[1])]

    def predict(self, pixels: np.ndarray, *_) -> Answer:
        """Returns probabilities; NaN for a finding that could not be fitted. It sees nothing but the pixels.

        pixels: (batch, S, S) grey or (batch, S, S, 3) RGB, uint8.
        """
        features = self.scaler.transform(_thumbnails(torch.from_numpy(pixels)))
        nothing = np.full(len(pixels), np.nan)
        return Answer(
            np.stack([model.predict_proba(features)[:, 1] if model else nothing for model in self.models], axis=1)
        )


def _read_features(split: Split, seed: int) -> tuple[np.ndarray, np.ndarray]:
    features, labels, missing = [], [], MAX_ROWS
    with closing(read_batches(split, READ_BATCH, shuffle_seed=seed)) as batches:
        for batch in batches:
            features.append(_thumbnails(batch.pixels[:missing]))
            labels.append(batch.labels[:missing].numpy())
            missing -= len(labels[-1])
            if missing == 0:
                break
    return np.concatenate(features), np.concatenate(labels)


def _thumbnails(pixels: torch.Tensor) -> np.ndarray:
    """Reduces (batch, S, S) uint8 to (batch, 256) area averages, (batch, S, S, 3) to (batch, 768)."""
    pixels = pixels.movedim(3, 1) if pixels.ndim == 4 else pixels
    return torch.nn.functional.adaptive_avg_pool2d(pixels.float(), THUMBNAIL_PX).flatten(1).numpy()


def _fit(features: np.ndarray, labels: np.ndarray) -> LogisticRegression | None:
    """Returns a fitted model, or None if the known labels contain no positives or no negatives."""
    known = ~np.isnan(labels)
    if not 0 < labels[known].sum() < known.sum():
        return None
    return LogisticRegression(C=INVERSE_PENALTY, max_iter=1000).fit(features[known], labels[known])
