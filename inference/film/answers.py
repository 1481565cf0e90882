"""The meaning of a graph's numbers for one image, the same for command line, batch, service and page."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from inference.film.stated import Stated, doubts_of
from inference.model.properties import Properties
from training.measures.conformal import NO_ANSWER, PRESENT, Bounds, answers_at

OPERATING_POINT = "youden"
UNFAMILIAR = "unlike the training data"
OF_ANSWERS = ("answer", "absent_below", "present_above")
"""fields of a finding that only a model has that answers unsure"""


@dataclass(frozen=True)
class Finding:
    """One finding of one image."""

    name: str
    probability: float | None
    """calibrated, 0..1; None if the image is unlike the training data"""
    threshold: float | None
    """probability at and above which the finding is called; None if the validation split had no such images"""
    present: bool | None
    """probability >= threshold; None if either is missing"""
    answer: str | None = None
    """`present`, `unsure` or `absent` at the model's error rate; None if the image is unlike the training data, and of
    a model that does not answer unsure"""
    absent_below: float | None = None
    """probability below which the answer is `absent`; None: never"""
    present_above: float | None = None
    """probability above which the answer is `present`; None: never"""

    @property
    def called(self) -> bool:
        """Whether people are shown the finding as found: by the answer, or of a model without, by the threshold."""
        return self.answer == PRESENT if self.answer else bool(self.present)


@dataclass(frozen=True)
class Findings:
    """The answer for one image."""

    findings: list[Finding]
    """in the order of the vocabulary"""
    familiar: bool
    """whether the image is like those that the model was trained on"""
    distance: float
    """distance from the training data, see inference/candidate/making/familiarity.py"""
    distance_threshold: float
    fault: str | None
    """why the ETL would have put the image into quarantine"""
    stated: Stated | None = None
    """age, sex and view that the model got; None if it takes pixels alone"""
    doubts: tuple[str, ...] = ()
    """what speaks against the pixels, see Film.doubts, and against these values, see doubts_of"""
    error_rate: float | None = None
    """the error rate of the answers; None if the model does not answer unsure"""

    def to_dict(self) -> dict:
        """The answer, ready for JSON. `warnings` says what speaks against trusting it. A missing number is None.

        What a model that does not answer unsure has no values for is left out.
        """
        without = self.error_rate is None
        hidden = ("stated", "doubts", *(["error_rate"] if without else []))
        # Not asdict: its deep copy would take a twentieth of the time that the service needs for a small film.
        fields = {name: value for name, value in vars(self).items() if name not in hidden}
        return {
            **fields,
            "findings": [
                {name: value for name, value in vars(finding).items() if not (without and name in OF_ANSWERS)}
                for finding in self.findings
            ],
            "distance": self.distance if isfinite(self.distance) else None,
            "attributes": self.stated.to_dict() if self.stated else None,
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """Sentences for people; none if nothing is wrong."""
        said = []
        if not self.familiar:
            numbers = f"distance {self.distance:.1f}, threshold {self.distance_threshold:.1f}"
            said.append(f"{UNFAMILIAR} ({numbers}): no finding is called")
        return [*said, *([self.fault] if self.fault else []), *self.doubts]


def call_findings(
    properties: Properties, probabilities: np.ndarray, distances: np.ndarray, operating_point: str = OPERATING_POINT
) -> tuple[np.ndarray, np.ndarray]:
    """Which images are familiar, (images,) bool, and which of their findings are called, (images, findings) bool.

    probabilities: (images, findings) float32; distances: (images,) float32. A finding that has no threshold, or is of
    an image that is not familiar, is not called.
    """
    thresholds = np.array([np.inf if value is None else value for value in properties.thresholds[operating_point]])
    # Written so that NaN is unfamiliar, and in float64 like the threshold.
    familiar = np.asarray(distances, np.float64) <= properties.distance_threshold
    return familiar, (probabilities >= thresholds) & familiar[:, None]


def answer_films(properties: Properties, probabilities: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The answers of a model that answers unsure, (images, findings), of ANSWERS; NO_ANSWER for unfamiliar images.

    probabilities, distances: as for call_findings, with the same familiar images.
    """
    lowest, highest = (
        np.array([outside if value is None else value for value in properties.unsure[name]])
        for name, outside in (("absent_below", -np.inf), ("present_above", np.inf))
    )
    familiar, _ = call_findings(properties, probabilities, distances)
    return np.where(familiar[:, None], answers_at(probabilities, Bounds(lowest, highest)), NO_ANSWER)


def describe_findings(
    properties: Properties,
    probabilities: np.ndarray,
    distance: float,
    fault: str | None = None,
    operating_point: str = OPERATING_POINT,
    stated: Stated | None = None,
    doubts: Sequence[str] = (),
) -> Findings:
    """probabilities: (findings,) float32; distance: this image's; operating_point: one of properties.thresholds.
    stated: what the model got besides the pixels. doubts: what speaks against the pixels, see Film.doubts.

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
    doubts = (*doubts, *(doubts_of(stated, properties) if stated else ()))
    limit = properties.distance_threshold
    unsure = properties.unsure
    if unsure:
        (answers,) = answer_films(properties, probabilities[None], np.array([distance]))
        bounds = zip(unsure["absent_below"], unsure["present_above"], strict=True)
        findings = [
            replace(finding, answer=str(answer) or None, absent_below=low, present_above=high)
            for finding, answer, (low, high) in zip(findings, answers, bounds, strict=True)
        ]
    rate = unsure.get("error_rate")
    return Findings(findings, bool(familiar), float(distance), limit, fault, stated, doubts, rate)
