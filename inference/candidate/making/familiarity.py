"""Is an image like the training data? Measures the distance from its pooled features to those of the training split.

The method is that of Lee et al., "A simple unified framework for detecting out-of-distribution samples", NeurIPS 2018,
but with one Gaussian for all images (an image can have several findings or none), and with the covariance estimate of
Ledoit and Wolf, J. Multivar. Anal. 88 (2004).
"""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf

QUANTILE = 0.99
"""share of the validation images within the threshold: one in a hundred of them counts as unlike the training data"""


@dataclass(frozen=True)
class Familiarity:
    """A Gaussian of the training split's features, float32."""

    centre: np.ndarray
    """(features,), the mean"""
    whitening: np.ndarray
    """(features, features); its product with its transpose is the inverse of the covariance"""

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of each image, (images,) float32, 0 or more. features: (images, features)."""
        return np.linalg.norm((features - self.centre) @ self.whitening, axis=1)


def fit_familiarity(features: np.ndarray) -> Familiarity:
    """Fits the Gaussian. features: (images, features), pooled, finite, from at least 2 images of the training split."""
    fitted = LedoitWolf().fit(features.astype(np.float64))
    whitening = np.linalg.cholesky(fitted.precision_)
    return Familiarity(fitted.location_.astype(np.float32), whitening.astype(np.float32))


def distance_threshold(distances: np.ndarray) -> float:
    """Returns the QUANTILE of the validation split's distances. distances: (images,)."""
    return float(np.quantile(distances, QUANTILE))
