"""The cohort of a set of phantoms: patients, studies, findings and the split, distributed like NIH ChestX-ray14."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.random import Generator

from etl.phantoms.hospitals import HOSPITALS, Hospital

# Share of images with each finding in the official test list (25,596 images). Rarer findings are raised to 5%, so that
# each split of a small set has positives.
PREVALENCE = {
    "Atelectasis": 3279 / 25596,
    "Cardiomegaly": 0.05,
    "Effusion": 4658 / 25596,
    "Infiltration": 6112 / 25596,
    "Mass": 1748 / 25596,
    "Nodule": 1623 / 25596,
    "Pneumonia": 0.05,
    "Pneumothorax": 2665 / 25596,
}
# Findings that occur together more often than by chance, as correlations of their latent normal variables.
TOGETHER = {
    ("Effusion", "Atelectasis"): 0.3,
    ("Effusion", "Infiltration"): 0.2,
    ("Effusion", "Cardiomegaly"): 0.3,
    ("Atelectasis", "Infiltration"): 0.15,
    ("Infiltration", "Pneumonia"): 0.25,
}
PATIENT_SHARE = 0.3
"""share of a finding's latent variance that a patient keeps between studies, 0..1"""
TEST_SHARE = 25596 / 112120
MOST_STUDIES = 40
"""most studies of one patient; NIH's maximum is 184, too many for a small set"""


@dataclass(frozen=True)
class Study:
    """One image and what its label file says about it."""

    patient: int
    follow_up: int
    age_years: int
    female: bool
    ap: bool
    findings: tuple[str, ...]
    test: bool
    """on the test list, otherwise on train_val"""

    @property
    def image_id(self) -> str:
        return f"{self.patient:08d}_{self.follow_up:03d}.png"


def draw_cohort(seed: int, num_images: int, hospital: Hospital = HOSPITALS["a"]) -> list[Study]:
    """Draws `num_images` studies, ordered by patient and follow-up; no patient is in both lists."""
    rng = np.random.default_rng(seed)
    sizes = draw_studies_per_patient(rng, num_images)
    in_test = draw_test_patients(rng, sizes)
    return [
        study
        for index, num_studies in enumerate(sizes)
        for study in draw_patient(rng, index + 1, num_studies, bool(in_test[index]), hospital)
    ]


def draw_studies_per_patient(rng: Generator, num_images: int) -> list[int]:
    """Number of studies of each patient, by a power law like NIH's (57% have one, the mean is 3.6)."""
    counts = np.arange(1, min(MOST_STUDIES, max(2, num_images // 25)) + 1)
    weights = counts**-1.75
    sizes = []
    while sum(sizes) < num_images:
        drawn = int(rng.choice(counts, p=weights / weights.sum()))
        sizes.append(min(drawn, num_images - sum(sizes)))
    return sizes


def draw_test_patients(rng: Generator, sizes: list[int]) -> np.ndarray:
    """(patients,) bool: random patients that fill the test list up to NIH's share of the images."""
    in_test, room = np.zeros(len(sizes), bool), round(TEST_SHARE * sum(sizes))
    for index in rng.permutation(len(sizes)):
        if sizes[index] <= room:
            in_test[index] = True
            room -= sizes[index]
    return in_test


def draw_patient(rng: Generator, patient: int, num_studies: int, test: bool, hospital: Hospital) -> list[Study]:
    """Draws one patient's studies: findings come and go, the age grows, and more findings make AP more likely."""
    names = list(PREVALENCE)
    correlation = np.eye(len(names))
    for (one, other), value in TOGETHER.items():
        i, j = names.index(one), names.index(other)
        correlation[i, j] = correlation[j, i] = value
    mixing = np.linalg.cholesky(correlation)
    thresholds = np.array([NormalDist().inv_cdf(1 - hospital.prevalence * share) for share in PREVALENCE.values()])
    lasting = mixing @ rng.standard_normal(len(names)) * PATIENT_SHARE**0.5
    female = bool(rng.random() < 0.435)
    # Enlarged hearts go with age; NIH's ages are 46.6 +- 16.6 years.
    age = np.clip(46.6 + 16 * rng.standard_normal() + 6 * lasting[names.index("Cardiomegaly")], 2, 94)
    studies = []
    for follow_up in range(num_studies):
        latent = lasting + mixing @ rng.standard_normal(len(names)) * (1 - PATIENT_SHARE) ** 0.5
        findings = tuple(
            name for name, value, threshold in zip(names, latent, thresholds, strict=True) if value > threshold
        )
        ap = bool(rng.random() < hospital.ap_share + 0.1 * min(len(findings), 4))
        studies.append(Study(patient, follow_up, int(age), female, ap, findings, test))
        age = min(age + rng.exponential(0.4), 95)
    return studies
