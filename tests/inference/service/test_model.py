"""A registered model, opened in each of its modes, answers alike."""

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from conf.errors import InputError
from inference.candidate.export import export_graphs
from inference.network import Served, ServedNetwork, torch_predict
from inference.service.batching import Batcher
from inference.service.counters import Counters
from inference.service.model import open_model
from tests.conftest import make_checkpoint
from tests.inference.service import toy

FILMS = [toy.film(grey, toy.SIZE_PX) for grey in (60, 100, 150)]


@pytest.fixture(scope="module")
def served() -> Served:
    """An untrained network."""
    checkpoint = make_checkpoint()
    classifier = checkpoint.build()
    width = classifier.classifier.in_features
    network = ServedNetwork(classifier, np.zeros(3), np.ones(3), np.zeros(width), np.eye(width) / 100).eval()
    return Served(checkpoint, network, toy.PROPERTIES)


@pytest.fixture(scope="module")
def folder(served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    export_graphs(served, folder, np.stack(FILMS))
    return folder


@pytest.mark.parametrize("mode", ["fp32", "fp16", "onnx", "torch"])
def test_each_mode_answers_as_the_network(folder, served, mode):
    model = open_model(folder, "chexscale", 1, mode)

    async def ask() -> list:
        batcher = Batcher(model.start, model.num_requests, 16, Counters())
        return await asyncio.gather(*map(batcher.answer, FILMS))

    answers, expected = asyncio.run(ask()), torch_predict(served.network)(np.stack(FILMS))
    tolerance = {"fp16": 1e-2}.get(mode, 1e-4)
    for answer, *parts in zip(answers, *expected, strict=True):
        for own, other in zip(answer, parts, strict=True):
            assert np.allclose(own, other, atol=tolerance, rtol=tolerance)


def test_a_mode_that_is_not_there_is_told(folder):
    with pytest.raises(InputError, match="no graph at .*int8"):
        open_model(folder, "chexscale", 1, "int8")


def test_an_open_model_answers_though_its_files_are_cut(folder, tmp_path):
    """In a process of its own: weights that are mapped from their file end it with a bus error."""
    code = f"""
import shutil, threading
from pathlib import Path
import numpy as np
from inference.service.model import open_model
shutil.copytree({str(folder / "fp32")!r}, {str(tmp_path / "fp32")!r})
model = open_model(Path({str(tmp_path)!r}), "chexscale", 1, "fp32")
with open({str(tmp_path / "fp32" / "model.bin")!r}, "r+b") as weights:
    weights.truncate(0)
answered = threading.Event()
model.start(np.zeros((3, {toy.SIZE_PX}, {toy.SIZE_PX}), np.uint8), lambda answer: answered.set())
assert answered.wait(30)
model.start.__self__.wait()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
