import numpy as np
import pytest
import torch

from conf.errors import InputError
from inference.export import compare_with_torch, export_graph
from inference.graphs import FILE, compile_graph, open_graph, properties_of
from training.checkpoint import Checkpoint


def test_graph_agrees_with_torch_on_images_and_any_batch_size(checkpoint, fp32, test_images):
    predict = compile_graph(open_graph(fp32))
    classifier = checkpoint.build()
    for batch in (1, 5):
        pixels = test_images[:batch]
        with torch.inference_mode():
            expected, expected_maps = classifier.probabilities_and_maps(torch.from_numpy(pixels))
        probabilities, maps = predict(pixels)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(maps, expected_maps, atol=1e-4)


def test_probability_is_the_sigmoid_of_the_maps_mean(fp32, test_images):
    probabilities, maps = compile_graph(open_graph(fp32))(test_images)
    np.testing.assert_allclose(1 / (1 + np.exp(-maps.mean(axis=(2, 3)))), probabilities, atol=1e-6)


def test_results_of_a_request_survive_the_next_one(fp32, test_images):
    predict = compile_graph(open_graph(fp32))
    first, _ = predict(test_images[:1])
    kept = first.copy()
    predict(255 - test_images[:1])
    np.testing.assert_array_equal(first, kept)


def test_graph_takes_uint8_and_carries_its_vocabulary(checkpoint, fp32):
    graph = open_graph(fp32)
    assert graph.input("pixels").element_type.to_string() == "u8"
    assert graph.input("pixels").partial_shape.to_string() == "[?,64,64]"
    properties = properties_of(graph)
    assert properties["findings"] == checkpoint.findings
    assert (properties["run_id"], properties["delta_version"]) == (checkpoint.run_id, 0)


def test_graph_of_another_network_is_refused(checkpoint, fp32):
    other = checkpoint.build()
    torch.nn.init.normal_(other.classifier.weight, std=0.1)
    with pytest.raises(RuntimeError, match="differs from torch"):
        compare_with_torch(other, fp32, checkpoint.size_px)


def test_weights_of_another_network_are_an_input_error(checkpoint, tmp_path):
    foreign = Checkpoint(**{**vars(checkpoint), "model": "resnet18"})
    with pytest.raises(InputError, match="do not fit resnet18"):
        export_graph(foreign, tmp_path / "fp32")
    assert not (tmp_path / "fp32").exists()


def test_damaged_graph_is_an_input_error(fp32, tmp_path):
    (tmp_path / FILE).write_bytes((fp32 / FILE).read_bytes()[:500])
    with pytest.raises(InputError, match="not a readable graph"):
        open_graph(tmp_path)
