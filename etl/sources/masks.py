"""Names of masks, overlays, thumbnails and the like: what marks regions of images, or was made of them."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from etl.contract.words import tokens_of

# Words in such names, and words beside them.
MASK_WORDS = {"mask", "masks", "seg", "segm", "segmentation", "segmentations", "annotation", "annotations", "gt"}
MASK_WORDS |= {"label", "labels", "heatmap", "heatmaps", "overlay", "overlays", "gradcam", "saliency", "contour"}
MASK_WORDS |= {"contours", "bbox", "bboxes", "boundingbox", "boundingboxes", "thumbs", "thumbnail"}
MASK_WORDS |= {"thumbnails", "preview", "previews"}
BESIDE_MASK = {"left", "right", "lung", "lungs", "heart"}


def marks(name: str) -> bool:
    """Whether the name is that of something that marks regions of images, or is made of images."""
    return any(token in MASK_WORDS or token.endswith("mask") for token in words_of(name))


def words_of(name: str) -> list[str]:
    """The tokens of the name, two of them as one if they are a word of masks, such as `grad_cam`."""
    words: list[str] = []
    for token in tokens_of(name):
        if words and words[-1] + token in MASK_WORDS:
            token = words.pop() + token
        words.append(token)
    return words


def without_mask(name: str) -> set[tuple[str, ...]]:
    """What an image may be called whose mask has this name: `1` for `1_lung_mask` and `mask_1`, and for `1_mask2`."""
    kept, without_numbers, after = [], [], False
    for token in words_of(name):
        is_mark = token in MASK_WORDS or token.endswith("mask")
        if not is_mark and token not in BESIDE_MASK:
            kept.append(token)
            without_numbers += [] if after and token.isdigit() else [token]
        after = is_mark or (after and token.isdigit())
    return {tuple(kept), tuple(without_numbers)} - {()}


def find_masks(images: Iterable[str], below: int) -> list[str]:
    """The images that mark regions of others, or were made of them.

    They are in a folder with such a name below a class, or have the name of an image and such a word, as `1_mask.png`.
    images: paths below the source. below: the number of folders down to that of a class and split.
    """
    paths = [PurePosixPath(image) for image in images]
    films = {(path.parts[:below], tuple(words_of(path.stem))) for path in paths if not marks(path.stem)}

    def is_mask(path: PurePosixPath) -> bool:
        if any(map(marks, path.parts[below:-1])):
            return True
        return marks(path.stem) and any((path.parts[:below], name) in films for name in without_mask(path.stem))

    return [str(path) for path in paths if is_mask(path)]
