"""A vision transformer that answers by its class token, from the checkpoint to INT8."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, logit

from conf.settings import Training
from conf.words import SEXES, VIEWS
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.export import export_graphs
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import quantize
from inference.model.graphs import compile_graph, open_graph, properties_of, rescale
from inference.model.networks.fitted import FittedModel, build_served, load_served, torch_predict
from inference.model.networks.served import FITTED
from tests.inference.conftest import FINDINGS, SIZE_PX, write_table
from training.network.attributes import encode_attributes
from training.network.build import build_model
from training.reading.readers import open_split

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


def test_colour_age_sex_and_view_pass_through_a_class_token(checkpoint, tmp_path):
    """Every form, and INT8, answers as the trained network with both inputs; export_graphs raises if one does not."""
    torch.manual_seed(1)
    workspace = Workspace.at(str(tmp_path))
    card, _, _ = write_table(workspace, channels=3)
    version = TableVersion(str(workspace.shards), card)
    splits = {name: open_split(version, name, SIZE_PX, True) for name in ("train", "val")}
    kind = {"channels": 3, "tabular": True}
    model = build_model(NAME, len(FINDINGS), 100, 40, size_px=SIZE_PX, **kind)
    torch.nn.init.normal_(model.classifier.weight)
    settings = {"training": vars(Training(model=NAME))}
    trained = replace(checkpoint, model=NAME, weights=model.state_dict(), settings=settings, **kind)
    served = fit_served(trained, card, splits["train"], splits["val"], seed=0)
    inputs = calibration_inputs(splits["val"], 8, 0, served.properties)
    export_graphs(served, tmp_path / "model", inputs)
    rows = pd.DataFrame(inputs[1], columns=["age_years", "sex", "view"])
    encoded = encode_attributes(
        rows.age_years, [SEXES[int(place)] for place in rows["sex"]], [VIEWS[int(place)] for place in rows["view"]]
    )
    with torch.inference_mode():
        logits = trained.build()(torch.from_numpy(inputs[0]), torch.from_numpy(encoded)).numpy()
    expected = expit((logits + served.properties.shifts) / served.properties.temperatures)
    fp32 = compile_graph(open_graph(tmp_path / "model" / "fp32"))
    np.testing.assert_allclose(fp32(*inputs).probabilities, expected, atol=1e-4)
    nobody = inputs[0], np.full_like(inputs[1], -1)
    int8 = compile_graph(quantize(tmp_path / "model" / "fp32", inputs))
    added = {
        name: logit(one(*inputs).probabilities) - logit(one(*nobody).probabilities)
        for name, one in (("fp32", fp32), ("int8", int8))
    }
    assert np.abs(added["fp32"]).max() > 0.05
    np.testing.assert_allclose(added["int8"], added["fp32"], atol=1e-2)


def test_an_ensemble_keeps_the_last_layer_of_its_transformer_in_fp32(transformer, checkpoint, test_images, tmp_path):
    """And quantises the rest of both: in 8 bits, the class token's last layer alone would change each logit."""
    findings = len(FINDINGS)
    members = [
        {
            "checkpoint": vars(one),
            "shifts": [0.0] * findings,
            "temperatures": [1.0] * findings,
            "votes": [0.5] * findings,
        }
        for one in (checkpoint, transformer.checkpoint)
    ]
    cnn = checkpoint.build()
    num_features = cnn.classifier.in_features
    fitted = [
        dict(zip(FITTED, (torch.zeros(findings), torch.ones(findings), torch.zeros(n), torch.eye(n)), strict=True))
        for n in (num_features, transformer.network.centre.shape[0])
    ]
    cells = cnn.feature_map(torch.from_numpy(test_images)).shape[-1]
    grids = torch.tensor([[0.5 / cells, 1 / cells, cells], [1 / 8, 1 / 4, 4]], dtype=torch.float64)
    whole = {"members": fitted, "grids": grids, "shifts": torch.zeros(findings), "temperatures": torch.ones(findings)}
    joined = replace(checkpoint, weights={}, members=members)
    properties = replace(
        transformer.properties,
        network="ensemble",
        members=[{"network": "one"}] * 2,
        map_first=0.5 / cells,
        map_step=1 / cells,
    )
    export_graphs(FittedModel(joined, build_served(joined, whole), properties), tmp_path, (test_images,))
    graph = quantize(tmp_path / "fp32", (test_images,))
    exact, int8 = (compile_graph(one)(test_images) for one in (open_graph(tmp_path / "fp32"), graph))
    assert np.abs(int8.probabilities - exact.probabilities).max() < 0.1
    assert not np.array_equal(int8.probabilities, exact.probabilities)
    heads = [
        operation
        for operation in graph.get_ops()
        if operation.get_type_name() == "Convolution" and operation.get_output_partial_shape(0)[1] == findings
    ]
    rounded = [operation.input_value(0).get_node().get_type_name() == "FakeQuantize" for operation in heads]
    # That of the convolutional member, and the two of the class token: on the token and on the patches.
    assert sorted(rounded) == [False, False, True]
