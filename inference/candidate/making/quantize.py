"""Quantises an FP32 graph to INT8, calibrated on images of the training split. The one owner of nncf."""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path
from threading import Event

import nncf
import numpy as np
import rich.progress
from nncf.common.logging import track_progress
from scipy.special import logit

from conf.progress import is_terminal, track
from inference.candidate.making.calibration_set import calibration_images
from inference.model.graphs import (
    Answer,
    CompiledModel,
    Graph,
    Predict,
    convolutions,
    open_graph,
    predict_with,
    save_graph,
)
from training.reading.plan import Split

# NNCF's messages about what it does not quantise are for its own developers.
nncf.set_log_level(logging.ERROR)


class Bars(rich.progress.Progress):
    """NNCF's bars; without a terminal, lines of those that last: accuracy control has hundreds of short ones."""

    def __init__(self, *columns, disable: bool = False, **settings):
        self.lines = not is_terminal(sys.stdout)
        super().__init__(*columns, disable=disable or self.lines, **settings)

    def track(self, sequence, total=None, task_id=None, description="", update_period=0.1):
        """The items of the sequence, each counted."""
        if not self.lines:
            return super().track(sequence, total, task_id, description=description, update_period=update_period)
        return track(sequence, description, int(total or length_hint(sequence)), end=False)


track_progress.Progress = Bars

CAREFUL_FACTOR = 4
"""times as many calibration images in the second and third try as in the first"""
MAX_ITERATIONS = 20
"""largest number of layers, or groups of layers, that the third try returns to FP32, the most sensitive first"""
RANKING_IMAGES = 64
"""number of calibration images, those that 8 bits change most, by which the third try ranks the layers"""
INTERRUPTED = Event()
"""set by Ctrl-C"""


@dataclass(frozen=True)
class Attempt:
    """One try at quantising the graph."""

    name: str
    calibration_images: int
    kept_in_fp32: list[str]
    """convolutions that are not computed in 8 bits"""


def quantize_attempts(
    fp32: Path,
    int8: Path,
    train: Split,
    num_images: int,
    seed: int,
    reference: Predict,
    val_overrun: Callable[[Predict], float],
) -> Iterator[Attempt]:
    """Writes one INT8 version of the graph in `fp32` after another into `int8`, each more careful than the last.

    The caller stops when it is satisfied. reference: predicts with the graph in `fp32`. val_overrun: by how much the
    drop of AUROC on the validation split exceeds its bound; the last try returns layers to FP32 until it is 0 or less.
    """
    for name, count in (("plain", num_images), ("more images", num_images * CAREFUL_FACTOR)):
        images = calibration_images(train, count, seed)
        quantize_folder(fp32, int8, images)
        yield Attempt(name, len(images), _in_fp32(int8))
    keep_sensitive_layers(fp32, int8, images, reference, val_overrun)
    yield Attempt("sensitive layers in FP32", len(images), _in_fp32(int8))


def quantize_folder(fp32: Path, int8: Path, images: np.ndarray) -> None:
    """Writes the INT8 version of the graph in `fp32` into `int8`; the input stays uint8 and the batch size free.

    images: (images, S, S) uint8, from the training split only: ranges taken from test images would flatter the test.
    Weights are quantised symmetrically; activations symmetrically or not, whichever fits (NNCF's MIXED preset).
    """
    graph = open_graph(fp32)
    save_graph(_in_thread(nncf.quantize, graph, _dataset(images), **_options(graph, len(images))), int8)


def keep_sensitive_layers(
    fp32: Path, int8: Path, images: np.ndarray, reference: Predict, val_overrun: Callable[[Predict], float]
) -> None:
    """Quantises like quantize_folder, but keeps the most sensitive layers in FP32 until val_overrun is 0 or less.

    NNCF's accuracy control ranks each layer by how near the logits of RANKING_IMAGES come to those of `reference` when
    it is not rounded. This takes minutes for a small network and hours for a large one.
    """
    graph = open_graph(fp32)
    shown = images[: 2 * RANKING_IMAGES]
    at_best = val_overrun(reference)

    def measure(compiled: CompiledModel, items: Iterable[np.ndarray]) -> tuple[float, list[float]]:
        """Returns the score that NNCF maximises, and the likeness of each image's logits to those of `reference`.

        For all images the score comes from val_overrun, and NNCF decides by it. For a part of them it is their mean
        likeness, and NNCF ranks the layers by it.
        """
        _check_interrupted()
        predict = predict_with(compiled)
        changes = (_logits(predict(image[np.newaxis])) - _logits(reference(image[np.newaxis])) for image in items)
        likeness = [-float(np.square(change).mean()) for change in changes]
        # 1 is added, so that FP32 gets 1: NNCF divides by it.
        deciding = len(likeness) == len(shown)
        return 1 + at_best - val_overrun(predict) if deciding else float(np.mean(likeness)), likeness

    quantized = _in_thread(
        nncf.quantize_with_accuracy_control,
        graph,
        calibration_dataset=_dataset(images),
        validation_dataset=_dataset(shown),
        validation_fn=measure,
        # The drop at which val_overrun is 0.
        max_drop=-at_best,
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MAX_ITERATIONS, ranking_subset_size=max(1, len(shown) // 2)
        ),
        **_options(graph, len(images)),
    )
    save_graph(quantized, int8)


def _in_thread(quantize: Callable[..., Graph], *arguments, **named) -> Graph:
    """Runs `quantize` in a thread of its own; Ctrl-C ends the work at its next image.

    NNCF creates and destroys Cores, which breaks the signal stack of the thread it runs in (see graphs.CORE).
    """
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(quantize, *arguments, **named)
        try:
            return done.result()
        except KeyboardInterrupt:
            # Wait for the thread: if it still computed while the program ends, the program would abort.
            INTERRUPTED.set()
            wait([done])
            INTERRUPTED.clear()
            raise


def _check_interrupted() -> None:
    if INTERRUPTED.is_set():
        raise KeyboardInterrupt


def _logits(answer: Answer) -> np.ndarray:
    return logit(np.clip(answer.probabilities.astype(np.float64), 1e-6, 1 - 1e-6))


def _dataset(images: np.ndarray) -> nncf.Dataset:
    # One image per item: NNCF counts items, and ranges over a batch hide the extremes of single images.
    def item(image: np.ndarray) -> np.ndarray:
        _check_interrupted()
        return image[np.newaxis]

    return nncf.Dataset(images, item)


def _options(graph: Graph, num_images: int) -> dict:
    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": num_images,
        "ignored_scope": nncf.IgnoredScope(names=_after_the_means(graph)),
    }


def _after_the_means(graph: Graph) -> list[str]:
    """Returns the names of the operations from the means over the map's cells to probabilities and distances.

    They stay in FP32, which costs nothing: 8 bits would leave 256 different logits and fewer probabilities. Whitening
    amplifies the directions in which the training data hardly vary, and with them the rounding of the features.
    """
    names: dict[str, None] = {}
    waiting = [graph.output(name).get_node() for name in ("probabilities", "distances")]
    while waiting:
        operation = waiting.pop()
        if operation.get_type_name() in ("Constant", "Result"):
            waiting += [value.get_node() for value in operation.input_values()]
            continue
        names[operation.get_friendly_name()] = None
        if operation.get_type_name() != "ReduceMean":
            waiting += [value.get_node() for value in operation.input_values()]
    return list(names)


def _in_fp32(int8: Path) -> list[str]:
    return [name for name, is_int8 in convolutions(open_graph(int8)).items() if not is_int8]
