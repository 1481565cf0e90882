"""Checks what an image shows (reasons for quarantine), and brings grey values to a common range. Pure functions.

The checks look at a sample of about 64x64 pixels. Every limit below was chosen on the 806 frontal films of the NIH
sample and on phantoms; tests/etl/contract/images/test_quality.py measures it again, the real films where
CHEXSCALE_NIH_SAMPLE is set.
"""

import cv2
import numpy as np

from conf.settings import Quality
from etl.contract.images.lungs.finder import find_lungs

SAMPLE_PX = 64
# Collimation and padding: edge rows and columns with so large a share of pixels so near to 0 or 255. The rest may be
# lettering; a border that is taken for film shifts the lungs, and can make a sound film look inverted.
BORDER_SHARE, BORDER_GREY = 0.95, 10
# Grey values between the 1st and 99th percentile. Every real film spans over 100.
MIN_GREY_SPAN = 16
# Share of clipped pixels of the film within its border. All real films are below 0.25, mostly air beside the body.
MAX_CLIPPED_SHARE = 0.5
# Clipped pixels are so near to 0 or 255; JPEG moves them by a few grey values.
CLIPPED_GREY = 4
# Share of the picture that the film fills. All real films fill over 0.5.
MIN_FILM_SHARE = 0.1
# Limit of upright_score. One real film, which is upside down, has -0.1 to 0; all others are above 0, 99 % above 0.2.
MIN_UPRIGHT = -0.2
# Limit of frontal_score. How many lateral films it finds is unknown without real ones; 1.5 % of frontal ones are below.
MIN_FRONTAL = 0.0
# Distance of the box around the lungs from the film's edges, as a share of the side. 5 of 241 real films are below.
MIN_LUNG_MARGIN = 0.01
TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
"""degrees clockwise -> OpenCV's name"""

# Mean of the 806 films within their borders, 8x8 cells, to the nearest 10 grey values: dark corners beside the neck,
# two dark lungs, a bright mediastinum between them, a bright abdomen.
# Correlation of such 8x8 images tells views of the chest apart: Lehmann et al. 2003, J Digit Imaging 16(3):280-291.
FRONTAL_CHEST = np.array(
    [
        [50, 60, 90, 150, 150, 90, 70, 60],
        [120, 130, 120, 140, 140, 120, 130, 120],
        [150, 150, 100, 130, 140, 100, 140, 150],
        [150, 140, 110, 150, 160, 110, 140, 140],
        [130, 140, 130, 170, 180, 140, 140, 130],
        [120, 160, 160, 190, 200, 170, 150, 120],
        [110, 170, 190, 210, 210, 190, 170, 110],
        [110, 180, 210, 220, 220, 200, 180, 100],
    ],
    np.float32,
)
CHEST_CONTRAST = FRONTAL_CHEST - FRONTAL_CHEST.mean()
# The cells that both lungs and the mediastinum cross, without the outermost columns (background, arms).
LUNG_CELLS = (slice(1, 5), slice(1, 7))

LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5
# Zuiderveld 1994, Contrast Limited Adaptive Histogram Equalization, Graphics Gems IV, pp. 474-485: a histogram per
# tile. The limit is in multiples of the mean count of a grey value.
CLAHE_CLIP_LIMIT, CLAHE_TILES = 2.0, (8, 8)


def find_fault(image: np.ndarray, quality: Quality) -> str | None:
    """Why this image goes to quarantine; None if no enabled check objects.

    image: (height, width) uint8 grey, as decoded, before any resizing. The checks run in the order of `quality`'s
    fields; the first that objects names what it measured and its limit. A black or white border is no fault.

    inverted: below MIN_UPRIGHT, see upright_score. Calls none of the real films inverted, and 99 % of them once they
    are. Of films that are upside down it calls every third inverted, of those on their side one in forty.
    lateral: below MIN_FRONTAL, see frontal_score. Calls 1.5 % of the real frontal films lateral, and finds 6 of 10
    crude drawings; the sample holds no lateral film to try it on. So it is for finding films to look at, not for
    cleaning: if a label file states the view, etl.views is exact.
    no_lungs, rotated, lungs_cut: by find_lungs. Of 241 real frontal films, 5 have no lungs by it, and 5 others have
    them cut off. It finds none on 239 of these films turned to the left, 241 to the right and 228 upside down. With 15%
    of a film's left side missing, 150 are called cut off.
    """
    height, width = image.shape
    if min(height, width) < quality.min_side_px:
        return f"too small: {width}x{height} pixels, expected sides of at least {quality.min_side_px}"
    sample = _sample(image)
    if quality.constant:
        low, high = _grey_range(sample, 1, 99)
        if high - low < MIN_GREY_SPAN:
            return f"constant: 98% of the pixels span {high - low} grey values, expected at least {MIN_GREY_SPAN}"
    if quality.clipped or quality.inverted or quality.lateral:
        fault = _find_grey_fault(sample, quality)
        if fault:
            return fault
    if quality.no_lungs or quality.rotated or quality.lungs_cut:
        return _find_lung_fault(image, quality)
    return None


def _find_grey_fault(sample: np.ndarray, quality: Quality) -> str | None:
    film = _inside_border(sample)
    if quality.clipped:
        film_share = film.size / sample.size
        if film_share < MIN_FILM_SHARE:
            return f"clipped: {film_share:.1%} of the picture is not border, expected at least {MIN_FILM_SHARE:.0%}"
        share = 1 - np.count_nonzero(cv2.inRange(film, CLIPPED_GREY + 1, 254 - CLIPPED_GREY)) / film.size
        if share > MAX_CLIPPED_SHARE:
            return f"clipped: {share:.1%} of the film is black or white, expected at most {MAX_CLIPPED_SHARE:.0%}"
    if quality.inverted:
        upright = upright_score(film)
        if upright < MIN_UPRIGHT:
            return f"inverted: correlation {upright:.2f} with a frontal chest, expected at least {MIN_UPRIGHT}"
    if quality.lateral:
        frontal = frontal_score(film)
        if frontal < MIN_FRONTAL:
            return f"lateral view: correlation {frontal:.2f} with frontal lungs, expected at least {MIN_FRONTAL}"
    return None


def _find_lung_fault(image: np.ndarray, quality: Quality) -> str | None:
    lungs = find_lungs(image)
    if lungs is None:
        turns = TURNS.items() if quality.rotated else ()
        if found := [str(degrees) for degrees, turn in turns if find_lungs(cv2.rotate(image, turn))]:
            return f"rotated: lungs are found once the film is turned by {' or '.join(found)} degrees clockwise"
        return "no lung field: nothing on the film looks like two lungs" if quality.no_lungs else None
    left, top, width, height = lungs
    margins = {"left": left, "upper": top, "right": 1 - left - width, "lower": 1 - top - height}
    edge = min(margins, key=margins.get)
    if quality.lungs_cut and margins[edge] < MIN_LUNG_MARGIN:
        return f"lungs cut off: they reach to {margins[edge]:.1%} of the side from the {edge} edge, expected 1% or more"
    return None


def upright_score(film: np.ndarray) -> float:
    """Correlation -1..1 of the film with FRONTAL_CHEST: negative for an inverted one. 0 without contrast.

    film: (height, width) uint8, without border. Of all its pixels, not of its 64 cells: noise comes out near 0.
    """
    mean, deviation = cv2.meanStdDev(film)
    covariance = np.vdot(_cells(film) - mean.item(), CHEST_CONTRAST) / CHEST_CONTRAST.size
    # At least one grey value: less is rounding, and the correlation of a constant is undefined.
    return float(covariance / (max(deviation.item(), 1) * CHEST_CONTRAST.std()))


def frontal_score(film: np.ndarray) -> float:
    """Correlation -1..1 of LUNG_CELLS with those of FRONTAL_CHEST, each row less its mean. 0 without contrast.

    film: (height, width) uint8, without border. A bright column between two dark ones is what correlates.
    """
    film_rows, chest_rows = (
        rows - rows.mean(axis=1, keepdims=True) for rows in (_cells(film)[LUNG_CELLS], FRONTAL_CHEST[LUNG_CELLS])
    )
    return float(np.vdot(film_rows, chest_rows) / (max(np.linalg.norm(film_rows), 1) * np.linalg.norm(chest_rows)))


def adjust_intensity(image: np.ndarray, method: str) -> np.ndarray:
    """The image with its grey values adjusted.

    image: (height, width) uint8 grey or (height, width, 3) uint8 RGB; so is the result. Of colour, the luminance is
    adjusted (ITU-R BT.601) and the chroma kept.
    method: `none`; `percentile`: linear, so that LOW_PERCENT of the pixels are at 0 and as many at 255, unchanged where
    both percentiles are one grey value; `clahe`: contrast by region.
    Raises ValueError for another method.
    """
    if method == "none":
        return image
    if image.ndim == 3:
        luminance, *chroma = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb))
        return cv2.cvtColor(cv2.merge([adjust_intensity(luminance, method), *chroma]), cv2.COLOR_YCrCb2RGB)
    if method == "percentile":
        return _stretch_grey(image, *_grey_range(image, LOW_PERCENT, HIGH_PERCENT))
    if method == "clahe":
        return cv2.createCLAHE(CLAHE_CLIP_LIMIT, CLAHE_TILES).apply(image)
    raise ValueError(f"intensity is {method!r}, expected none, percentile or clahe")


def _sample(image: np.ndarray) -> np.ndarray:
    """A sample of evenly spaced rows and columns: 64 to 127 of each, or all if there are fewer."""
    row_step, column_step = (max(1, side // SAMPLE_PX) for side in image.shape)
    return np.ascontiguousarray(image[row_step // 2 :: row_step, column_step // 2 :: column_step])


def _inside_border(sample: np.ndarray) -> np.ndarray:
    """The sample without the black or white rows and columns at its edges; the whole sample if it is all border."""
    film = sample
    for _ in ("rows", "columns"):
        dark, light = (cv2.inRange(film, *ends) for ends in ((0, BORDER_GREY), (255 - BORDER_GREY, 255)))
        # The share at one end: a row half black and half white is no border.
        shares = [cv2.reduce(mask, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel() / 255 for mask in (dark, light)]
        inside = np.flatnonzero(np.maximum(*shares) < BORDER_SHARE)
        if not inside.size:
            return sample
        film = np.ascontiguousarray(film[inside[0] : inside[-1] + 1].T)
    return film


def _cells(film: np.ndarray) -> np.ndarray:
    return cv2.resize(film.astype(np.float32), FRONTAL_CHEST.shape, interpolation=cv2.INTER_AREA)


def _grey_range(image: np.ndarray, low_percent: float, high_percent: float) -> tuple[int, int]:
    """The smallest grey values with at least so many percent of the pixels at or below them."""
    counts = cv2.calcHist([image], [0], None, [256], [0, 256]).ravel().cumsum(dtype=np.float64)
    low, high = np.searchsorted(counts, (low_percent / 100 * image.size, high_percent / 100 * image.size))
    return int(low), int(high)


def _stretch_grey(image: np.ndarray, low: int, high: int) -> np.ndarray:
    if low == high:
        return image
    table = np.clip((np.arange(256) - low) * (255 / (high - low)), 0, 255)
    return cv2.LUT(image, np.rint(table).astype(np.uint8))
