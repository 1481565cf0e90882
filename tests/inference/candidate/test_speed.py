import numpy as np
import pytest

from inference.candidate.measuring import speed
from inference.candidate.measuring.speed import measure_footprint, measure_speed, size_mb
from tests.inference.toy_properties import PROPERTIES


def test_speed_counts_single_images_and_batches():
    calls = []

    def predict(pixels: np.ndarray) -> None:
        calls.append(len(pixels))

    measured = measure_speed(predict, PROPERTIES, batch_size=4)
    assert set(calls) == {1, 4}
    assert 0 < measured.latency_ms <= measured.latency_p95_ms
    assert measured.images_per_s > 0


def test_slow_variant_is_timed_fewer_times(monkeypatch):
    monkeypatch.setattr(speed, "TIME_LIMIT_S", 0.0)
    calls = []
    measure_speed(lambda pixels: calls.append(len(pixels)), PROPERTIES, batch_size=4)
    assert calls.count(1) == speed.WARM_UP + speed.MIN_REPETITIONS


def test_a_graph_costs_a_process_less_than_torch(fp32):
    graph, torch = (measure_footprint(mode, fp32.with_name(mode), 16) for mode in ("fp32", "torch"))
    assert 50 < graph.peak_memory_mb < torch.peak_memory_mb
    assert 0 < graph.first_answer_s < torch.first_answer_s
    files = [file.stat().st_size for file in fp32.iterdir()]
    assert size_mb(fp32) == pytest.approx(sum(files) / 1e6)


def test_a_missing_variant_is_reported(tmp_path):
    with pytest.raises(RuntimeError, match="no graph at"):
        measure_footprint("fp32", tmp_path, 16)
