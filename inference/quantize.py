"""FP32 graph to INT8 graph, calibrated on images of the training split."""

from contextlib import closing
from pathlib import Path

import numpy as np

from inference.graphs import open_graph, quantize_graph, save_graph
from training.plan import Split
from training.readers import read_batches

READ_BATCH = 64


def calibration_images(split: Split, num_images: int, seed: int) -> np.ndarray:
    """(images, S, S) uint8: the first images of the split in the order of `seed`, the same in every call.

    Fewer where the split has fewer.
    """
    parts, missing = [], num_images
    with closing(read_batches(split, READ_BATCH, shuffle_seed=seed)) as batches:
        for batch in batches:
            parts.append(batch.pixels[:missing].numpy())
            missing -= len(parts[-1])
            if missing == 0:
                break
    return np.concatenate(parts)


def quantize_folder(fp32: Path, int8: Path, images: np.ndarray) -> None:
    """Writes the INT8 version of the graph in `fp32` into `int8`; the input stays uint8 and the batch size free.

    images: (images, S, S) uint8, from the training split only: ranges taken from test images would flatter the test.
    """
    # One by one: NNCF counts items, and ranges over a batch hide the extremes of single images.
    singles = [image[np.newaxis] for image in images]
    save_graph(quantize_graph(open_graph(fp32), singles, len(singles)), int8)
