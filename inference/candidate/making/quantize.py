"""FP32 graph to INT8 graph, calibrated on images of the training split. The one owner of nncf."""

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import nncf
import numpy as np
from scipy.special import logit

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

# Its notes on what it does not quantise are for its developers.
nncf.set_log_level(logging.ERROR)

CAREFUL_FACTOR = 4
"""calibration images of the second and third try to those of the first"""
MAX_ITERATIONS = 20
"""layers, or groups of them, that the third try gives their FP32 back, the most sensitive first"""
RANKING_IMAGES = 64
"""calibration images, those that 8 bits change most, on which it finds the most sensitive ones"""
INTERRUPTED = Event()
"""set by Ctrl-C"""


@dataclass(frozen=True)
class Attempt:
    """One way of quantising, in the order in which they are tried."""

    name: str
    calibration_images: int
    kept_in_fp32: list[str]
    """convolutions that are not computed on 8 bits"""


def quantize_attempts(
    fp32: Path,
    int8: Path,
    train: Split,
    num_images: int,
    seed: int,
    reference: Predict,
    val_overrun: Callable[[Predict], float],
) -> Iterator[Attempt]:
    """Writes into `int8` one INT8 version of the graph in `fp32` after the other, each more careful than the last.

    The caller stops when it is satisfied. reference: what the graph in `fp32` answers. val_overrun: by how much AUROC
    on the validation split falls too far; the last try gives layers back to FP32 until it is 0 or less.
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
    Weights are symmetric, activations symmetric or not, whichever fits (NNCF's MIXED preset).
    """
    graph = open_graph(fp32)
    save_graph(_in_thread(nncf.quantize, graph, _dataset(images), **_options(graph, len(images))), int8)


def keep_sensitive_layers(
    fp32: Path, int8: Path, images: np.ndarray, reference: Predict, val_overrun: Callable[[Predict], float]
) -> None:
    """As quantize_folder, but the layers whose rounding costs most stay in FP32, until val_overrun is 0 or less.

    By NNCF's accuracy control: layers are ranked by how near the logits of RANKING_IMAGES come to `reference` without
    their rounding. Minutes for a small network, hours for a large one.
    """
    graph = open_graph(fp32)
    shown = images[: 2 * RANKING_IMAGES]
    at_best = val_overrun(reference)

    def measure(compiled: CompiledModel, items: Iterable[np.ndarray]) -> tuple[float, list[float]]:
        """What NNCF wants high: by all images it decides, by some it ranks; and the same of each image."""
        _check_interrupted()
        predict = predict_with(compiled)
        changes = (_logits(predict(image[np.newaxis])) - _logits(reference(image[np.newaxis])) for image in items)
        likeness = [-float(np.square(change).mean()) for change in changes]
        # 1 for FP32: NNCF divides by it.
        deciding = len(likeness) == len(shown)
        return 1 + at_best - val_overrun(predict) if deciding else float(np.mean(likeness)), likeness

    quantized = _in_thread(
        nncf.quantize_with_accuracy_control,
        graph,
        calibration_dataset=_dataset(images),
        validation_dataset=_dataset(shown),
        validation_fn=measure,
        # The drop that is left when val_overrun is 0.
        max_drop=-at_best,
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MAX_ITERATIONS, ranking_subset_size=max(1, len(shown) // 2)
        ),
        **_options(graph, len(images)),
    )
    save_graph(quantized, int8)


def _in_thread(quantize: Callable[..., Graph], *arguments, **named) -> Graph:
    """In a thread of its own: NNCF makes Cores that come and go, see graphs.CORE, and a thread's signal stack is its
    own. Ctrl-C ends the work at its next image."""
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(quantize, *arguments, **named)
        try:
            return done.result()
        except KeyboardInterrupt:
            # Waited for: a thread that computes while the program ends makes it abort.
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
    # One by one: NNCF counts items, and ranges over a batch hide the extremes of single images.
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
    """The operations from the means over the places to probabilities and distances.

    They cost nothing, and 8 bits would leave 256 different logits, and fewer probabilities; whitening enlarges the
    directions in which the training data hardly differ, and the rounding of the features with them.
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
