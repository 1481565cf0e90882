import numpy as np

from inference.graphs import compile_graph, num_int8_layers, open_graph, properties_of
from inference.quantize import calibration_images
from training.readers import read_batches


def test_int8_graph_computes_its_convolutions_on_8_bits(fp32, int8):
    assert num_int8_layers(open_graph(fp32)) == 0
    # Two in the body, and the one that makes the maps.
    assert num_int8_layers(open_graph(int8)) == 3
    assert (int8 / "model.bin").stat().st_size < (fp32 / "model.bin").stat().st_size / 3


def test_int8_graph_keeps_input_batch_size_and_vocabulary(fp32, int8, test_images):
    graph = open_graph(int8)
    assert graph.input("pixels").element_type.to_string() == "u8"
    assert properties_of(graph) == properties_of(open_graph(fp32))
    predict, reference = compile_graph(graph), compile_graph(open_graph(fp32))
    for batch in (1, 5):
        probabilities, maps = predict(test_images[:batch])
        expected, expected_maps = reference(test_images[:batch])
        assert maps.shape == expected_maps.shape
        # 8 bits move this small network's probabilities by up to 0.3.
        assert np.abs(probabilities - expected).mean() < 0.1


def test_calibration_images_are_training_images_and_the_same_every_time(splits):
    images = calibration_images(splits["train"], 48, seed=3)
    assert images.shape == (48, 64, 64)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, calibration_images(splits["train"], 48, seed=3))
    assert not np.array_equal(images, calibration_images(splits["train"], 48, seed=4))
    stored = {image.tobytes() for batch in read_batches(splits["train"], 64) for image in batch.pixels.numpy()}
    assert {image.tobytes() for image in images} <= stored


def test_calibration_takes_the_whole_split_where_it_is_smaller(splits):
    assert len(calibration_images(splits["val"], 1000, seed=0)) == splits["val"].rows
