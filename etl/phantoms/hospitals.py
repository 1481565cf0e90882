"""Where phantoms are taken: two hospitals whose films and patients differ, for testing a model of one at the other."""

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Hospital:
    """How a hospital exposes its films, and whom it examines."""

    window_low: Range
    """attenuation below which a film is black, drawn for each film"""
    window_high: Range
    """attenuation above which it is white"""
    gamma: Range
    """exponent of the film's curve; above 1 the lungs are darker"""
    grain: Range
    """standard deviation of the noise, grey values of 255"""
    ap_share: float
    """share of bedside films among those without a finding"""
    prevalence: float
    """number of findings, as a multiple of PREVALENCE"""


HOSPITALS = {
    "a": Hospital((0.0, 0.17), (0.9, 1.2), (0.8, 1.35), (1.5, 5.0), 0.32, 1.0),
    # Harder films with more noise, as of an older detector, more of them at the bedside, and fewer findings.
    "b": Hospital((0.2, 0.45), (0.8, 1.1), (1.2, 2.0), (6.0, 12.0), 0.6, 0.6),
}
