import numpy as np

from inference.files.overlays import worth_painting
from inference.film.answers import describe_findings
from tests.inference.toy_properties import PROPERTIES


def test_where_nothing_is_called_the_nearest_finding_is_painted():
    """The nearest by odds: 0.05 of 0.1 is nearer than 0.3 of 0.6, and none is near without a threshold."""
    nearest = describe_findings(PROPERTIES, np.array([0.01, 0.5, 0.9], np.float32), 9.0)
    assert worth_painting(nearest) == [1]
    assert worth_painting(describe_findings(PROPERTIES, np.array([0.29, 0.5, 0.9], np.float32), 9.0)) == [0]
    assert worth_painting(describe_findings(PROPERTIES, np.array([0.9, 0.9, 0.9], np.float32), 9.0)) == [0, 1]
    assert worth_painting(describe_findings(PROPERTIES, np.array([0.9, 0.9, 0.9], np.float32), 99.0)) == []
