from dataclasses import replace

import numpy as np

from inference.graphs import compile_graph, convolutions, open_graph, properties_of


def test_int8_graph_computes_its_convolutions_on_8_bits(fp32, int8):
    # Two in the body, and the one that makes the maps.
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
