"""Where a finding can be on a film whose lungs are known: inside the outline around both lungs, heart included."""

import numpy as np

REGION_PX = 64
"""side of a region, whatever the film's"""


def region_of(mask: bytes | None, size_px: int) -> np.ndarray:
    """The share of each place that lies in the convex outline of the lungs, (REGION_PX, REGION_PX) float32, 0..1.

    mask: a cell of the table's column mask_S, S is size_px; None, or one without lung (which the crop may leave): 0
    everywhere. The outline is convex, because findings of the heart and the mediastinum lie between the lungs.
    """
    # Imported here because a training without masks, and the check of a GPU, need torch and pyarrow alone.
    import cv2

    region = np.zeros((REGION_PX, REGION_PX), np.float32)
    if mask is None:
        return region
    lungs = cv2.findNonZero(np.frombuffer(mask, np.uint8).reshape(size_px, size_px))
    if lungs is None:
        return region
    outline = np.zeros((size_px, size_px), np.uint8)
    cv2.fillConvexPoly(outline, cv2.convexHull(lungs), 255)
    interpolation = cv2.INTER_AREA if size_px > REGION_PX else cv2.INTER_LINEAR
    return cv2.resize(outline, (REGION_PX, REGION_PX), interpolation=interpolation).astype(np.float32) / 255
