"""What a graph's numbers mean for one image, as every way of asking tells it: command line, batch, service and page."""

from dataclasses import dataclass
from math import isfinite

import numpy as np

from inference.model.properties import Properties

OPERATING_POINT = "youden"
UNFAMILIAR = "unlike the training data"


@dataclass(frozen=True)
class Finding:
    """One finding of one image."""

    name: str
    probability: float | None
    """calibrated, 0..1; None where the image is unlike the training data"""
    threshold: float | None
    """probability from which on the finding is called; None where the validation split had no such images"""
    present: bool | None
    """probability >= threshold; None where either is missing"""


@dataclass(frozen=True)
class Findings:
    """One image."""

    findings: list[Finding]
    """in the order of the vocabulary"""
    familiar: bool
    """whether the image is like those that the model was trained on"""
    distance: float
    """from the training data, see inference/candidate/making/familiarity.py"""
    distance_threshold: float
    fault: str | None
    """why the ETL would have put the image into quarantine"""

    def to_dict(self) -> dict:
        """For JSON; `warnings` says in words what speaks against trusting the answer. No number: None."""
        # Not asdict, whose deep copy takes a twentieth of the time that a small film does in the service.
        return {
            **vars(self),
            "findings": [dict(vars(finding)) for finding in self.findings],
            "distance": self.distance if isfinite(self.distance) else None,
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """Sentences for people, none where nothing is wrong."""
        said = []
        if not self.familiar:
            numbers = f"distance {self.distance:.1f}, threshold {self.distance_threshold:.1f}"
            said.append(f"{UNFAMILIAR} ({numbers}): no finding is called")
        return said + ([self.fault] if self.fault else [])


def call_findings(
    properties: Properties, probabilities: np.ndarray, distances: np.ndarray, operating_point: str = OPERATING_POINT
) -> tuple[np.ndarray, np.ndarray]:
    """Which images are familiar, (images,) bool, and which findings of theirs are called, (images, findings) bool.

    probabilities: (images, findings) float32; distances: (images,) float32. A finding that has no threshold, or is of
    an image that is not familiar, is not called.
    """
    thresholds = np.array([np.inf if value is None else value for value in properties.thresholds[operating_point]])
    # Written so that NaN is unfamiliar; in float64, as the threshold is, whatever came.
    familiar = np.asarray(distances, np.float64) <= properties.distance_threshold
    return familiar, (probabilities >= thresholds) & familiar[:, None]


def describe_findings(
    properties: Properties,
    probabilities: np.ndarray,
    distance: float,
    fault: str | None = None,
    operating_point: str = OPERATING_POINT,
) -> Findings:
    """probabilities: (findings,) float32; distance: of this image; operating_point: one of properties.thresholds.

    An image that is unlike the training data gets no probabilities: what the network says of it, it has not learned.
    """
    (familiar,), (present,) = call_findings(properties, probabilities[None], np.array([distance]), operating_point)
    thresholds = properties.thresholds[operating_point]
    findings = [
        Finding(name, float(value), threshold, None if threshold is None else bool(called))
        if familiar
        else Finding(name, None, threshold, None)
        for name, value, threshold, called in zip(properties.findings, probabilities, thresholds, present, strict=True)
    ]
    return Findings(findings, bool(familiar), float(distance), properties.distance_threshold, fault)
