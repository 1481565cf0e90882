"""What a graph's numbers mean for one image, as every way of asking tells it: command line, batch, service and page."""

from dataclasses import asdict, dataclass

import numpy as np

from inference.properties import Properties

OPERATING_POINT = "youden"
UNFAMILIAR = "unlike the training data"
NOTE = "Research use only, not for clinical use."


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
    """from the training data, see inference/familiarity.py"""
    distance_threshold: float
    fault: str | None
    """why the ETL would have put the image into quarantine"""

    def to_dict(self) -> dict:
        """For JSON; `warnings` says in words what speaks against trusting the answer."""
        return {**asdict(self), "warnings": self.warnings}

    @property
    def warnings(self) -> list[str]:
        """Sentences for people, none where nothing is wrong."""
        said = []
        if not self.familiar:
            numbers = f"distance {self.distance:.1f}, threshold {self.distance_threshold:.1f}"
            said.append(f"{UNFAMILIAR} ({numbers}): no finding is called")
        return said + ([self.fault] if self.fault else [])


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
    # Written so that NaN is unfamiliar.
    familiar = bool(distance <= properties.distance_threshold)
    findings = []
    for name, value, threshold in zip(
        properties.findings, probabilities, properties.thresholds[operating_point], strict=True
    ):
        probability = float(value) if familiar else None
        known = probability is not None and threshold is not None
        findings.append(Finding(name, probability, threshold, probability >= threshold if known else None))
    return Findings(findings, familiar, float(distance), properties.distance_threshold, fault)


def call_findings(
    properties: Properties, probabilities: np.ndarray, distances: np.ndarray, operating_point: str = OPERATING_POINT
) -> tuple[np.ndarray, np.ndarray]:
    """What describe_findings says of many images at once: (images,) bool familiar, (images, findings) bool present.

    probabilities: (images, findings) float32; distances: (images,) float32. A finding that has no threshold, or is of
    an image that is not familiar, is not present here.
    """
    thresholds = np.array([np.inf if value is None else value for value in properties.thresholds[operating_point]])
    familiar = distances <= properties.distance_threshold
    return familiar, (probabilities >= thresholds) & familiar[:, None]
