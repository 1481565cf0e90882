"""Averages the probabilities of ten crops (Krizhevsky et al., NeurIPS 2012), as CheXNet's reproductions do.

Half of the crops are mirrored, although the training mirrors nothing (the heart is on the left). Whether the average
helps must therefore be measured, which inference/register.py does.
"""

import cv2
import numpy as np

from inference.model.graphs import Answer, Predict

SHARE = 224 / 256
"""side of a crop as a share of the image's side, as published"""
NUM_CROPS = 10
SUFFIX = "_ten_crop"
"""ends the name of a variant that averages ten crops"""


def ten_crops(pixels: np.ndarray) -> np.ndarray:
    """Cuts out each image's four corners and centre, enlarged to S, and mirrors them.

    (batch, S, S) or (batch, S, S, 3) uint8 to 10 * batch such images; the crops of one image follow each other.
    """
    size_px = pixels.shape[1]
    side = round(size_px * SHARE)
    end, middle = size_px - side, (size_px - side) // 2
    crops = []
    for image in pixels:
        for top, left in ((0, 0), (0, end), (end, 0), (end, end), (middle, middle)):
            crop = np.ascontiguousarray(image[top : top + side, left : left + side])
            crop = cv2.resize(crop, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
            crops += [crop, crop[:, ::-1]]
    return np.stack(crops)


def with_ten_crops(predict: Predict) -> Predict:
    """Averages the model's probabilities over ten crops; maps and distances stay those of the whole image."""

    def averaged(pixels: np.ndarray, *more: np.ndarray) -> Answer:
        whole = predict(pixels, *more)
        # One crop of all images at a time, so that batches stay as large as the caller chose.
        crops = ten_crops(pixels).reshape(len(pixels), NUM_CROPS, *pixels.shape[1:])
        means = np.mean(
            [predict(np.ascontiguousarray(crops[:, crop]), *more).probabilities for crop in range(NUM_CROPS)], axis=0
        )
        return Answer(means.astype(np.float32), whole.maps, whole.distances)

    return averaged


def add_ten_crops(variants: dict[str, Predict]) -> dict[str, Predict]:
    """The variants, and each but the baseline once more with ten crops, named with SUFFIX."""
    crops = {name + SUFFIX: with_ten_crops(predict) for name, predict in variants.items() if name != "baseline"}
    return variants | crops
