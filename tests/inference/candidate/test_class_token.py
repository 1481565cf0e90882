"""A vision transformer that answers by its class token, from the checkpoint to INT8."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from conf.settings import Training
from etl.contract.schema import Card
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.export import export_graphs
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import quantize
from inference.model.graphs import compile_graph, open_graph, properties_of, rescale
from inference.model.networks.fitted import FittedModel, load_served, torch_predict
from tests.inference.conftest import FINDINGS, SIZE_PX
from training.network.models import build_model

NAME = "timm:test_vit"


@pytest.fixture(scope="module")
def transformer(workspace, checkpoint, splits) -> FittedModel:
    """With random weights, whose logits differ enough from film to film."""
    torch.manual_seed(0)
    card = Card.read(workspace.card)
    column = f"image_{SIZE_PX}"
    model = build_model(NAME, len(FINDINGS), card.pixel_mean[column], card.pixel_std[column], size_px=SIZE_PX)
    torch.nn.init.normal_(model.classifier.weight)
    settings = {"training": vars(Training(model=NAME))}
    trained = replace(checkpoint, model=NAME, weights=model.state_dict(), settings=settings)
    return fit_served(trained, card, splits["train"], splits["val"], seed=0)


@pytest.fixture(scope="module")
def graph_fp32(transformer, test_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("token")
    # It raises if a graph differs from torch.
    export_graphs(transformer, folder, (test_images,))
    return folder / "fp32"


def test_every_form_says_that_its_maps_are_relative_and_their_mean_is_the_logit(transformer, graph_fp32, test_images):
    assert (
        not transformer.properties.exact_maps
        and load_served(graph_fp32.with_name("torch")).properties == transformer.properties
    )
    assert (transformer.properties.map_first, transformer.properties.map_step) == (1 / 8, 1 / 4)
    answers = [torch_predict(transformer.network)(test_images), compile_graph(open_graph(graph_fp32))(test_images)]
    assert not properties_of(open_graph(graph_fp32)).exact_maps
    for answer in answers:
        assert answer.maps.shape == (5, 3, 4, 4)
        np.testing.assert_allclose(expit(answer.maps.mean(axis=(2, 3))), answer.probabilities, atol=1e-6)
    scales, offsets = np.array([0.5, 2, 1]), np.array([1, 0, -1])
    moved = compile_graph(rescale(open_graph(graph_fp32), scales, offsets))(test_images)
    expected = expit(logit(answers[1].probabilities) * scales + offsets)
    np.testing.assert_allclose(moved.probabilities, expected, atol=1e-5)


def test_familiarity_is_of_the_class_token(transformer, test_images):
    classifier = transformer.checkpoint.build()
    pixels = torch.from_numpy(test_images)
    images = ((pixels.float() - classifier.pixel_mean) / classifier.pixel_std)[:, None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        token = classifier.body.network(images)
        expected = torch.linalg.vector_norm((token - transformer.network.centre) @ transformer.network.whitening, dim=1)
    np.testing.assert_allclose(torch_predict(transformer.network)(test_images).distances, expected, rtol=1e-4)


def test_int8_stays_near_fp32(graph_fp32, splits):
    properties = properties_of(open_graph(graph_fp32))
    (images,) = calibration_inputs(splits["test"], 32, 0, properties)
    graph = quantize(graph_fp32, calibration_inputs(splits["train"], 32, 0, properties))
    (int8, exact) = (compile_graph(one)(images) for one in (graph, open_graph(graph_fp32)))
    logits, expected = logit(int8.probabilities), logit(exact.probabilities)
    assert not np.array_equal(logits, expected)
    # NNCF must know that it is a transformer. Otherwise sums between its blocks have 8 bits too, and change far more.
    change = np.sqrt(np.square(logits - expected).mean(axis=0)) / expected.std(axis=0)
    assert change.max() < 0.4, change
    np.testing.assert_allclose(int8.maps.mean(axis=(2, 3)), logits, atol=1e-4)
    np.testing.assert_allclose(int8.distances, exact.distances, rtol=0.2)
