"""Names of masks, overlays, thumbnails and the like: what marks regions of images, or was made of them."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import PurePosixPath

from etl.contract.words import describes_films, tokens_of

# Words in such names, and words beside them.
MASK_WORDS = {"mask", "masks", "seg", "segm", "segmentation", "segmentations", "annotation", "annotations", "gt"}
MASK_WORDS |= {"label", "labels", "heatmap", "heatmaps", "overlay", "overlays", "gradcam", "saliency", "contour"}
MASK_WORDS |= {"contours", "bbox", "bboxes", "boundingbox", "boundingboxes", "thumbs", "thumbnail"}
MASK_WORDS |= {"thumbnails", "preview", "previews", "groundtruth", "groundtruths", "msk", "msks"}
BESIDE_MASK = {"left", "right", "lung", "lungs", "heart"}
# Words that films may have too: they mark a region only if the film of the same name lies beside it.
DOUBTFUL_WORDS = {"roi", "rois", "cam", "cams", "annotated", "segmented", "lung", "lungs", "heart", "crop", "cropped"}
MAX_KINDS = 4
"""kinds of folders below the classes; more are those of patients"""


def marks(name: str) -> bool:
    """Whether the name is that of something that marks regions of images, or is made of images."""
    return any(map(_is_mark, words_of(name)))


def may_mark(name: str) -> bool:
    """Whether the name says so if the folder holds files with the names of films, as `roi` and `left lung` do."""
    words = set(words_of(name))
    return bool(words & DOUBTFUL_WORDS) and words <= DOUBTFUL_WORDS | BESIDE_MASK


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
        if not _is_mark(token) and token not in BESIDE_MASK | DOUBTFUL_WORDS:
            kept.append(token)
            without_numbers += [] if after and token.isdigit() else [token]
        after = _is_mark(token) or (after and token.isdigit())
    return {tuple(kept), tuple(without_numbers)} - {()}


def find_masks(images: Iterable[str], below: int) -> list[str]:
    """The images that mark regions of others, or were made of them.

    They are in a folder with such a name below a class, or have the name of an image and such a word, as `1_mask.png`.
    images: paths below the source. below: the number of folders down to that of a class and split.
    """
    paths = [PurePosixPath(image) for image in images]
    kept = [path for path in paths if not marks(path.stem)]
    films = {(path.parts[:below], tuple(words_of(path.stem))) for path in kept}
    sure = {
        (path.parts[:below], tuple(words_of(path.stem)))
        for path in kept
        if not any(marks(folder) or may_mark(folder) for folder in path.parts[below:-1])
    }

    def is_mask(path: PurePosixPath) -> bool:
        folders, place, words = path.parts[below:-1], path.parts[:below], words_of(path.stem)
        if any(map(marks, folders)):
            return True
        if any(map(may_mark, folders)) and (place, tuple(words)) in sure:
            return True
        doubtful = not DOUBTFUL_WORDS.isdisjoint(words)
        return (doubtful or marks(path.stem)) and any((place, name) in films for name in without_mask(path.stem))

    return [str(path) for path in paths if is_mask(path)]


def describe_twins(images: Iterable[str], below: int) -> list[str]:
    """A sentence on folders below classes that hold files of the very same names as their neighbours, as masks do.

    images: paths below the source, without those from find_masks. below: as in find_masks.
    """
    names: dict[tuple[str, ...], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in map(PurePosixPath, images):
        if len(path.parts) > below + 1:
            names[path.parts[:below]][path.parts[below]].add("/".join((*path.parts[below + 1 : -1], path.stem)))
    kinds = {kind for folders in names.values() for kind in folders}
    if len(kinds) > MAX_KINDS or any(any(token.isdigit() for token in tokens_of(kind)) for kind in kinds):
        return []
    if all(map(describes_films, kinds)):
        return []
    for place, folders in names.items():
        for one, other in combinations(sorted(folders), 2):
            both = [held for held in names.values() if one in held and other in held]
            if all(held[one] == held[other] for held in both):
                above = "/".join(place)
                return [
                    f"the files of {above}/{other} have the same names as those of {above}/{one}, and all are read as "
                    "films: if one of them holds masks, move it out of the source"
                ]
    return []


def _is_mark(token: str) -> bool:
    return token in MASK_WORDS or token.endswith(("mask", "groundtruth"))
