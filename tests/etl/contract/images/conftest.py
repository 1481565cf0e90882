"""Films for the tests of the checks on what an image shows."""

import numpy as np
import pytest

from etl.phantoms.cohort import draw_cohort
from etl.phantoms.film import render


@pytest.fixture(scope="session")
def phantoms() -> list[np.ndarray]:
    """60 films of 256x256."""
    cohort = draw_cohort(11, 100)[:60]
    return [render((11, s.patient, s.follow_up), s.female, s.ap, s.findings, 256)[0] for s in cohort]
