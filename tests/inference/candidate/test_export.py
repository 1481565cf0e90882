import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from scipy.special import expit, logit

from conf.errors import InputError
from etl.contract.schema import Card
from inference.candidate.making.export import compare_with_torch, export_graphs
from inference.candidate.making.fitting import fit_served, predict_features
from inference.model.graphs import FILE, compile_graph, open_graph, properties_of, rescale
from inference.model.networks.fitted import load_served, torch_predict
from inference.model.networks.served import ServedNetwork
from inference.model.onnx_graph import OPSET, onnx_predict, onnx_properties, open_onnx
from inference.model.variants import open_variant
from training.measures.calibration import fit_calibration
from training.network.checkpoint import Checkpoint
from training.network.models import pool


def written(fp32, name: str):
    folder = fp32.with_name(name)
    return onnx_predict(open_onnx(folder)) if name == "onnx" else compile_graph(open_graph(folder))


@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-5), ("onnx", 1e-5), ("fp16", 2e-3)])
def test_graph_agrees_with_torch_on_images_and_any_batch_size(name, tolerance, served, fp32, test_images):
    predict = written(fp32, name)
    for batch in (1, 5):
        pixels = test_images[:batch]
        answer, expected = predict(pixels), torch_predict(served.network)(pixels)
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=tolerance)
        np.testing.assert_allclose(answer.maps, expected.maps, atol=10 * tolerance * np.abs(expected.maps).max())
        np.testing.assert_allclose(answer.distances, expected.distances, rtol=10 * tolerance)


def test_probability_is_calibrated_and_the_sigmoid_of_the_maps_mean(served, fp32, splits, test_images):
    answer = compile_graph(open_graph(fp32))(test_images)
    np.testing.assert_allclose(expit(answer.maps.mean(axis=(2, 3))), answer.probabilities, atol=1e-6)
    classifier = served.checkpoint.build()
    labels, logits, _ = predict_features(classifier, splits["val"], 10**6, None)
    assert len(labels) == splits["val"].rows
    calibration = fit_calibration(labels, logits, np.ones(3))
    assert calibration.temperatures[0] != 1
    with torch.inference_mode():
        plain = classifier(torch.from_numpy(test_images)).numpy()
    np.testing.assert_allclose(answer.probabilities, calibration.probabilities(plain), atol=1e-5)


def test_the_shift_that_a_weighted_loss_causes_is_undone(checkpoint, workspace, splits, test_images):
    card = Card.read(workspace.card)
    # Three negatives per positive of the first finding.
    counts = {"train": {"Bright_Corner": 4, "Chequers": 2, "Never": 2}}
    weighted = fit_served(checkpoint, replace(card, known=counts), splits["train"], splits["val"], seed=0)
    np.testing.assert_allclose(weighted.properties.shifts, [-np.log(3), 0, 0], rtol=1e-6)
    with torch.inference_mode():
        logits = checkpoint.build()(torch.from_numpy(test_images)).numpy()[:, 0]
    expected = 1 / (1 + np.exp(-(logits - np.log(3)) / weighted.properties.temperatures[0]))
    answer = torch_predict(weighted.network)(test_images)
    np.testing.assert_allclose(answer.probabilities[:, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("sharpness", [0.0, 5.0])
def test_classes_are_a_softmax_of_the_maps_pooled_at_one_temperature(checkpoint, test_images, sharpness):
    classes = replace(checkpoint, exclusive=True, sharpness=sharpness).build()
    network = ServedNetwork(classes, np.zeros(3), np.full(3, 2.5), np.zeros(64), np.eye(64)).eval()
    answer = torch_predict(network)(test_images)
    with torch.inference_mode():
        logits = classes(torch.from_numpy(test_images))
    np.testing.assert_allclose(answer.probabilities, (logits / 2.5).softmax(dim=1), atol=1e-6)
    pooled = pool(torch.from_numpy(answer.maps), 2.5 * sharpness)
    np.testing.assert_allclose(pooled.softmax(dim=1), answer.probabilities, atol=1e-6)


def test_results_of_a_request_survive_the_next_one(fp32, test_images):
    predict = compile_graph(open_graph(fp32))
    first = predict(test_images[:1]).probabilities
    kept = first.copy()
    predict(255 - test_images[:1])
    np.testing.assert_array_equal(first, kept)


def test_graph_takes_uint8_and_carries_its_vocabulary_and_thresholds(checkpoint, fp32):
    graph = open_graph(fp32)
    assert graph.input("pixels").element_type.to_string() == "u8"
    assert graph.input("pixels").partial_shape.to_string() == "[?,64,64]"
    properties = properties_of(graph)
    assert properties.findings == checkpoint.findings
    assert (properties.run_id, properties.delta_version) == (checkpoint.run_id, 0)
    assert 0 < properties.thresholds["youden"][0] < 1
    # The finding is never positive, so there is nothing to choose a threshold by.
    assert properties.thresholds["youden"][2] is None


def test_onnx_states_its_opset_and_carries_the_same_properties(fp32):
    model = onnx.load(fp32.with_name("onnx") / "model.onnx")
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [OPSET]
    ours, theirs = onnx_properties(open_onnx(fp32.with_name("onnx"))), properties_of(open_graph(fp32))
    assert ours == theirs


def test_the_torch_network_survives_saving_and_loading(served, fp32, test_images, tmp_path):
    loaded = load_served(fp32.with_name("torch"))
    assert loaded.properties == served.properties
    answer, expected = (torch_predict(one.network)(test_images) for one in (loaded, served))
    for part, wanted in zip(answer, expected, strict=True):
        np.testing.assert_array_equal(part, wanted)
    (tmp_path / "network.pt").write_bytes((fp32.with_name("torch") / "network.pt").read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable network"):
        load_served(tmp_path)


def test_half_precision_is_half_as_large(fp32):
    sizes = [(fp32.with_name(name) / "model.bin").stat().st_size for name in ("fp32", "fp16")]
    assert sizes[1] < 0.55 * sizes[0]


def test_graph_of_another_network_is_refused(served, fp32, test_images):
    predict = compile_graph(open_graph(fp32))
    for damage in (lambda network: network.classifier.classifier.weight, lambda network: network.whitening):
        other = fit_like(served)
        torch.nn.init.normal_(damage(other), std=0.5)
        with pytest.raises(RuntimeError, match="fp32 graph differs from torch"):
            compare_with_torch(other, "fp32", predict, (test_images,))


def fit_like(served):
    import copy

    other = copy.deepcopy(served.network)
    for parameter in other.parameters():
        parameter.requires_grad_(False)
    return other


def test_weights_of_another_network_are_an_input_error(checkpoint, workspace, splits):
    card = Card.read(workspace.card)
    foreign = Checkpoint(**{**vars(checkpoint), "model": "resnet18"})
    with pytest.raises(InputError, match="do not fit resnet18"):
        fit_served(foreign, card, splits["train"], splits["val"], 0)


def test_damaged_graph_is_an_input_error(fp32, tmp_path):
    (tmp_path / FILE).write_bytes((fp32 / FILE).read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable graph"):
        open_graph(tmp_path)
    (tmp_path / "model.onnx").write_bytes((fp32.with_name("onnx") / "model.onnx").read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable ONNX model"):
        open_onnx(tmp_path)


@pytest.mark.parametrize(("mode", "package"), [("onnx", "onnxruntime"), ("torch", "torch")])
def test_a_variant_whose_package_is_missing_says_so(mode, package, fp32, monkeypatch):
    for module in (package, "inference.model.onnx_graph", "inference.model.networks.fitted"):
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"mode {mode} needs {package}, which is not installed: `pip install"):
        open_variant(mode, fp32.with_name(mode))


def test_a_sharp_model_with_fine_maps_is_exported_and_recalibrated(
    checkpoint, workspace, splits, test_images, fp32, tmp_path
):
    card = Card.read(workspace.card)
    own = replace(checkpoint, sharpness=2.0, map_stride=8)
    served = fit_served(own, card, splits["train"], splits["val"], seed=0)
    # Compares the graphs with torch.
    export_graphs(served, tmp_path, (test_images,))
    before = compile_graph(open_graph(tmp_path / "fp32"))(test_images)
    assert before.maps.shape[-1] > 1.5 * compile_graph(open_graph(fp32))(test_images).maps.shape[-1]
    logits = logit(before.probabilities.astype(np.float64))
    assert not np.allclose(logits, before.maps.mean(axis=(2, 3)), atol=0.1)
    scales, offsets = np.array([1.5, 0.8, 2.0]), np.array([0.1, -0.4, 1.0])
    after = compile_graph(rescale(open_graph(tmp_path / "fp32"), scales, offsets))(test_images)
    np.testing.assert_allclose(after.probabilities, expit(scales * logits + offsets), atol=1e-4)
    moved = before.maps * scales[:, None, None] + offsets[:, None, None]
    np.testing.assert_allclose(after.maps, moved, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(after.distances, before.distances)


def test_a_network_of_an_older_release_is_read(fp32, test_images, tmp_path):
    """It called what was fitted `buffers`."""
    now = load_served(fp32.with_name("torch"))
    content = torch.load(fp32.with_name("torch") / "network.pt", weights_only=True)
    torch.save({"buffers": content.pop("fitted"), **content}, tmp_path / "network.pt")
    expected, got = (torch_predict(one.network)(test_images) for one in (now, load_served(tmp_path)))
    np.testing.assert_array_equal(got.probabilities, expected.probabilities)
