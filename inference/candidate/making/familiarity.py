"""Is an image like those the model was trained on? The distance of its pooled features to the training split's.

Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018, with one Gaussian for
all images (an image has several findings or none), and the covariance of Ledoit and Wolf, J. Multivar. Anal. 88 (2004).
"""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf

QUANTILE = 0.99
"""of the validation split's distances: one in a hundred of its images is called unlike the training data"""


@dataclass(frozen=True)
class Familiarity:
    """A Gaussian of the training split's features, float32."""

    centre: np.ndarray
    """(features,)"""
    whitening: np.ndarray
    """(features, features): its product with its transpose is the inverse of the covariance"""

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of each image, (images,) float32, 0 or more. features: (images, features)."""
        return np.linalg.norm((features - self.centre) @ self.whitening, axis=1)


def fit_familiarity(features: np.ndarray) -> Familiarity:
    """features: (images, features) pooled features of the training split, finite, at least 2 images."""
    fitted = LedoitWolf().fit(features.astype(np.float64))
    whitening = np.linalg.cholesky(fitted.precision_)
    return Familiarity(fitted.location_.astype(np.float32), whitening.astype(np.float32))


def distance_threshold(distances: np.ndarray) -> float:
    """The distance that QUANTILE of the validation split's images do not exceed. distances: (images,)."""
    return float(np.quantile(distances, QUANTILE))
