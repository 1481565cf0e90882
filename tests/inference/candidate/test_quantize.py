import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from inference.candidate.making.quantize import keep_sensitive_layers, quantize_folder
from inference.model.graphs import compile_graph, convolutions, open_graph, properties_of
from tests.inference.conftest import REPOSITORY


def test_int8_graph_computes_its_convolutions_on_8_bits(fp32, int8):
    # Two convolutions in the body, and the one that makes the maps.
    assert list(convolutions(open_graph(fp32)).values()) == [False] * 3
    assert list(convolutions(open_graph(int8)).values()) == [True] * 3
    assert (int8 / "model.bin").stat().st_size < (fp32 / "model.bin").stat().st_size / 3


def test_nothing_is_quantised_after_the_means_over_the_places(int8):
    graph = open_graph(int8)
    means = [operation for operation in graph.get_ordered_ops() if operation.get_type_name() == "ReduceMean"]
    waiting, after = means[:], []
    while waiting:
        operation = waiting.pop()
        after.append(operation.get_type_name())
        waiting += [entry.get_node() for output in operation.outputs() for entry in output.get_target_inputs()]
    assert {"MatMul", "Sigmoid"} <= set(after)
    assert "FakeQuantize" not in after


def test_int8_graph_keeps_input_batch_size_and_vocabulary(fp32, int8, test_images):
    graph = open_graph(int8)
    assert graph.input("pixels").element_type.to_string() == "u8"
    ours, theirs = properties_of(graph), properties_of(open_graph(fp32))
    assert replace(ours, distance_threshold=0) == replace(theirs, distance_threshold=0)
    predict, reference = compile_graph(graph), compile_graph(open_graph(fp32))
    for batch in (1, 5):
        answer, expected = predict(test_images[:batch]), reference(test_images[:batch])
        assert answer.maps.shape == expected.maps.shape
        # 8 bits move this small network's probabilities by up to 0.3.
        assert np.abs(answer.probabilities - expected.probabilities).mean() < 0.1
        np.testing.assert_allclose(answer.distances, expected.distances, rtol=0.5)


def test_the_most_sensitive_layers_stay_in_fp32_until_the_validation_bound_is_met(fp32, test_images, tmp_path):
    reference = compile_graph(open_graph(fp32))
    quantize_folder(fp32, tmp_path / "plain", test_images)
    asked = []

    def change(predict) -> float:
        return float(np.abs(predict(test_images).probabilities - reference(test_images).probabilities).mean())

    bound = change(compile_graph(open_graph(tmp_path / "plain"))) / 2

    def overrun(predict) -> float:
        asked.append(change(predict) - bound)
        return asked[-1]

    keep_sensitive_layers(fp32, tmp_path / "int8", test_images, reference, overrun)
    assert max(asked) > 0
    assert change(compile_graph(open_graph(tmp_path / "int8"))) <= bound
    is_int8 = list(convolutions(open_graph(tmp_path / "int8")).values())
    assert 0 < sum(is_int8) < len(is_int8)
    # Layers are ranked by a few images. The whole split is scored only for FP32, plain INT8 and each layer returned.
    assert len(asked) < 8


def test_a_graph_that_loses_nothing_is_left_as_it_is(fp32, test_images, tmp_path):
    keep_sensitive_layers(fp32, tmp_path / "int8", test_images, compile_graph(open_graph(fp32)), lambda _: -0.01)
    assert all(convolutions(open_graph(tmp_path / "int8")).values())


def test_in_a_log_nncfs_bars_are_lines(fp32, test_images, tmp_path, monkeypatch, capfd):
    quantize_folder(fp32, tmp_path / "int8", test_images[:4])
    assert capfd.readouterr() == ("", ""), "a bar that ends within half a minute says nothing"
    monkeypatch.setattr("conf.progress.LINE_EVERY_S", 0)
    quantize_folder(fp32, tmp_path / "int8", test_images[:4])
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"^Statistics collection: 4 of 4, [\d,.]+/s, 0.0 s left$", err, re.MULTILINE), err


SIGNALLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from inference.candidate.making.quantize import keep_sensitive_layers, quantize_folder
from inference.model.graphs import compile_graph, convolutions, open_graph
fp32, int8 = map(Path, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
quantize_folder(fp32, int8, images)
models = [compile_graph(open_graph(folder)) for folder in (fp32, int8, fp32)]
drops = iter([-0.1, -0.1, 0.1, 0.05, -0.01])
keep_sensitive_layers(fp32, int8, images, models[0], lambda _: next(drops))
convolutions(open_graph(int8))
while models:
    models.pop(0)
signal.signal(signal.SIGTERM, lambda *_: print("noted", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_survived_after_graphs_have_come_and_gone(fp32, tmp_path):
    """OpenVINO's plugin sets the thread's signal stack; the first of two to be destroyed frees the other's memory."""
    program = [sys.executable, "-c", SIGNALLED, str(fp32), str(tmp_path / "int8")]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=REPOSITORY)
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["noted"]), ended.stderr


INTERRUPTED = """
import sys
from pathlib import Path
import numpy as np
from conf.errors import run_command
from inference.candidate.making.quantize import keep_sensitive_layers
from inference.model.graphs import compile_graph, open_graph
fp32, int8 = map(Path, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
asked = []

def overrun(predict):
    asked.append(1)
    print("asked", len(asked), flush=True)
    return -0.1 if len(asked) < 3 else 0.1

run_command(lambda: keep_sensitive_layers(fp32, int8, images, compile_graph(open_graph(fp32)), overrun))
"""


@pytest.mark.parametrize("when", ["asked 1", "asked 3"])
def test_ctrl_c_ends_it_and_no_thread_keeps_computing(when, fp32, tmp_path):
    program = [sys.executable, "-c", INTERRUPTED, str(fp32), str(tmp_path / "int8")]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    for line in process.stdout:
        if line.strip() == when:
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "")
    assert not (tmp_path / "int8").exists()
