"""Properties of a model for tests that need no model."""

from dataclasses import asdict, replace

from conf.settings import Quality
from inference.model.properties import Properties

PROPERTIES = Properties(
    findings=["Mass", "Nodule", "Hernia"],
    exclusive=False,
    size_px=64,
    square="pad",
    intensity="none",
    quality=asdict(Quality()),
    shifts=[0.0] * 3,
    temperatures=[1.0] * 3,
    thresholds={"youden": [0.3, 0.6, None], "sensitivity_0.9": [0.1, 0.2, 0.3]},
    distance_threshold=10.0,
    map_first=1 / 16,
    map_step=1 / 8,
    network="simple_cnn",
    run_id="run",
    delta_table_id="table",
    delta_version=0,
    commit="0123abc",
    ancestors=[],
)

TAKES_ATTRIBUTES = replace(
    PROPERTIES,
    attributes={
        "columns": ["age_years", "sex", "view"],
        "codes": {"sex": ["F", "M"], "view": ["PA", "AP", "LATERAL"]},
        "unknown": -1,
        "trained_on": {
            "age_years": {"low": 20.0, "high": 80.0, "unknown": 0},
            "sex": {"F": 40, "M": 50, "unknown": 10},
            "view": {"PA": 70, "AP": 20, "LATERAL": 0, "unknown": 10},
        },
    },
)
"""of a model that takes age, sex and view"""
