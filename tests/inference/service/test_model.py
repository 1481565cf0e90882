"""A registered model gives the same answers in each of its modes."""

import asyncio
import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from conf.errors import InputError
from inference.candidate.making.export import export_graphs
from inference.model.model_files import ModelFiles
from inference.model.networks.fitted import FittedModel, torch_predict
from inference.model.networks.served import ServedNetwork
from inference.service.door.counters import Counters
from inference.service.engine.batching import Batcher
from inference.service.engine.model import open_model
from tests.conftest import make_checkpoint
from tests.inference.service import toy

FILMS = [toy.film(grey, toy.SIZE_PX) for grey in (60, 100, 150)]


@pytest.fixture(scope="module")
def served() -> FittedModel:
    """An untrained network."""
    checkpoint = make_checkpoint()
    classifier = checkpoint.build()
    width = classifier.classifier.in_features
    network = ServedNetwork(classifier, np.zeros(3), np.ones(3), np.zeros(width), np.eye(width) / 100).eval()
    return FittedModel(checkpoint, network, toy.PROPERTIES)


@pytest.fixture(scope="module")
def folder(served, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    export_graphs(served, folder, (np.stack(FILMS),))
    return folder


@pytest.mark.parametrize("mode", ["fp32", "fp16", "onnx", "torch"])
def test_each_mode_answers_as_the_network(folder, served, mode):
    model = open_model(ModelFiles("chexscale", 1, folder), mode)

    async def ask() -> list:
        batcher = Batcher(model.compute, model.num_requests, 16, Counters())
        return await asyncio.gather(*map(batcher.answer, FILMS))

    answers, expected = asyncio.run(ask()), torch_predict(served.network)(np.stack(FILMS))
    tolerance = {"fp16": 1e-2}.get(mode, 1e-4)
    for answer, *parts in zip(answers, *expected, strict=True):
        for own, other in zip(answer, parts, strict=True):
            assert np.allclose(own, other, atol=tolerance, rtol=tolerance)


def test_a_missing_mode_is_an_input_error(folder):
    with pytest.raises(InputError, match="no graph at .*int8"):
        open_model(ModelFiles("chexscale", 1, folder), "int8")


def test_an_open_model_still_answers_after_its_files_are_cut(folder, tmp_path):
    """Runs in a process of its own, because weights mapped from the cut file would end it with a bus error."""
    code = f"""
import shutil
from pathlib import Path
import numpy as np
from inference.model.model_files import ModelFiles
from inference.service.engine.model import open_model
shutil.copytree({str(folder / "fp32")!r}, {str(tmp_path / "fp32")!r})
model = open_model(ModelFiles("chexscale", 1, Path({str(tmp_path)!r})), "fp32")
with open({str(tmp_path / "fp32" / "model.bin")!r}, "r+b") as weights:
    weights.truncate(0)
assert len(model.compute(np.zeros((3, {toy.SIZE_PX}, {toy.SIZE_PX}), np.uint8), alone=False).distances) == 3
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_model_that_has_answered_is_freed(folder):
    async def ask() -> list[weakref.ref]:
        model = open_model(ModelFiles("chexscale", 1, folder), "fp32")
        batcher = Batcher(model.compute, model.num_requests, 16, Counters())
        for alone in (True, False):
            await batcher.answer(FILMS[0], alone=alone)
        return [weakref.ref(batcher), weakref.ref(model.compute.__self__)]

    kept = asyncio.run(ask())
    gc.collect()
    assert [one() for one in kept] == [None, None]


def test_a_batch_that_cannot_be_computed_does_not_block_the_next(folder):
    async def ask() -> None:
        model = open_model(ModelFiles("chexscale", 1, folder), "fp32")
        batcher = Batcher(model.compute, model.num_requests, 16, Counters())
        for _ in range(model.num_requests + 1):
            with pytest.raises(RuntimeError):
                await asyncio.wait_for(batcher.answer(FILMS[0][:5]), 10)
        await asyncio.wait_for(batcher.answer(FILMS[0]), 10)

    asyncio.run(ask())
