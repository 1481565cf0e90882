"""Ten crops of an image, whose probabilities are averaged: Krizhevsky et al., NeurIPS 2012, as CheXNet's reproductions.

Half of them are mirrored, and the training mirrors nothing (the heart is on the left): what the average gains or loses
is a matter of measuring, which inference/register.py does.
"""

import cv2
import numpy as np

from inference.model.graphs import Answer, Predict

SHARE = 224 / 256
"""side of a crop to the image's, that of the published ones"""
NUM_CROPS = 10
SUFFIX = "_ten_crop"
"""of the name of a variant that averages them"""


def ten_crops(pixels: np.ndarray) -> np.ndarray:
    """(batch, S, S) uint8 to (10 * batch, S, S): an image's four corners and centre, enlarged to S, and their mirrors.

    Its crops follow each other.
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
    """The same model, its probabilities the means over ten crops; maps and distances are of the whole image."""

    def averaged(pixels: np.ndarray) -> Answer:
        whole = predict(pixels)
        # A crop at a time of all images: the batch stays as large as the caller has chosen it.
        crops = ten_crops(pixels).reshape(len(pixels), NUM_CROPS, *pixels.shape[1:])
        means = np.mean(
            [predict(np.ascontiguousarray(crops[:, crop])).probabilities for crop in range(NUM_CROPS)], axis=0
        )
        return Answer(means.astype(np.float32), whole.maps, whole.distances)

    return averaged
