"""Requests that schemathesis generates from the service's OpenAPI description are answered as it says."""

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.inference.service import toy

EXAMPLES = 15
KEY = "a-key-of-more-than-16"


def test_every_answer_is_as_described(registry):
    with toy.running(registry, "--serving.requests_per_minute=0", key=KEY) as service:
        schema = schemathesis.openapi.from_url(f"{service.address}/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=EXAMPLES,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
                derandomize=True,
                database=None,
            )
            @given(case=operation.as_strategy())
            def check(case) -> None:
                # No schema says which bytes are an image, or which operating points the model has.
                case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=[positive_data_acceptance])

            check()
        assert service.predict(toy.png(toy.film(150))).status_code == 200
        assert service.places == []
