"""Quantises an FP32 graph to INT8, calibrated on images of the training split. The one owner of nncf."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from operator import length_hint
from pathlib import Path

import nncf
import numpy as np
import rich.progress
from nncf.common.logging import track_progress
from nncf.quantization.range_estimator import RangeEstimatorParametersSet

from conf.progress import track
from inference.candidate.making.layer_search import RANKING_IMAGES, LayerSearch
from inference.candidate.making.time_limit import INTERRUPTED, NO_LIMIT, TimeLimit
from inference.model.graphs import INPUTS, OUTPUTS, Graph, Node, convolutions, open_graph, properties_of
from inference.model.inputs import Inputs, chosen

# NNCF's messages about what it does not quantise are for its own developers.
nncf.set_log_level(logging.ERROR)

RANKING = "Calculating ranking scores"
WORDS = {
    "Statistics collection": "ranges of activations",
    "Applying Fast Bias correction": "correcting biases",
    RANKING: "ranking groups of layers",
}
"""NNCF's name of a loop -> what it does"""
ATTENTION = ("ScaledDotProductAttention", "Softmax")
"""operations by which a transformer's places look at each other"""
TOKENS_CUT = ("Gather", "Slice", "StridedSlice", "ShapeOf")
"""operations that cut the class token and the patches out of the tensor of all tokens, or ask for its shape"""
MAX_ITERATIONS = 20
"""largest number of groups of layers that are returned to FP32, the most sensitive first"""


@dataclass(frozen=True)
class Work:
    """What NNCF is doing for whom."""

    title: str = "INT8"
    """beginning of its lines of progress, such as `INT8, way 2 of 3`"""
    limit: TimeLimit = NO_LIMIT
    """when it must have ended"""
    search: LayerSearch | None = None


ALONE = Work()


class Loops(rich.progress.Progress):
    """NNCF's loops: shown as our own progress, and stopped between two steps by the time limit and by Ctrl-C."""

    work = ALONE

    def __init__(self, *columns, **settings):
        super().__init__(disable=True)

    def track(self, sequence, total=None, task_id=None, description="", update_period=0.1):
        """The items of the sequence, each counted."""
        work, words = self.work, WORDS.get(description, description)
        total = int(total or length_hint(sequence))
        if description == RANKING:
            work.search.start_ranking(total)
        for item in track(sequence, f"{work.title}: {words}", total, "step", end=False):
            work.limit.check(words)
            yield item
        if description == RANKING:
            work.search.end_ranking()


track_progress.Progress = Loops


def quantize(fp32: Path, inputs: Inputs, *, correct_biases: bool = False, work: Work = ALONE) -> Graph:
    """The INT8 version of the graph in the folder `fp32`; its inputs keep their types and its batch size stays free.

    inputs: what the graph takes for images of the training split only. Ranges of test images would flatter the test.
    Weights are quantised symmetrically; activations symmetrically or not, whichever fits (NNCF's MIXED preset).
    An activation's range covers all images. NNCF's default, the mean over the images of their own ranges, changes the
    logits several times as much. correct_biases: biases make up for the change of a layer's mean output (NNCF's fast
    bias correction), which helps some networks and harms others.
    Raises TimeIsUp if the time of `work` ends before.
    """
    graph = open_graph(fp32)
    settings = _settings(graph, inputs) | {"advanced_parameters": _ranges(correct_biases)}
    return _in_thread(work, nncf.quantize, graph, _dataset(inputs), **settings)


def quantize_lungs(graph: Graph, pixels: np.ndarray) -> Graph:
    """The INT8 version of a lung network. pixels: (films, S, S) uint8, of the training split only."""
    films = nncf.Dataset(range(len(pixels)), lambda film: pixels[film : film + 1])
    settings = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(pixels)}
    # Changed in place otherwise, and FP32 is measured beside it.
    return _in_thread(ALONE, nncf.quantize, graph.clone(), films, **settings)


def keep_sensitive_layers(fp32: Path, inputs: Inputs, *, correct_biases: bool = False, work: Work) -> Graph:
    """Quantises like `quantize`, but returns layers to FP32, the most sensitive first, until the search ends.

    work.search: decides when the graph is good enough, on its own images. A group of layers is the more sensitive the
    nearer the logits come to FP32's when it is not rounded (NNCF's accuracy control). Ranking takes seconds for each of
    the groups, of which a large network has a hundred.
    """
    graph, search = open_graph(fp32), work.search
    shown = search.num_images
    return _in_thread(
        work,
        nncf.quantize_with_accuracy_control,
        graph,
        calibration_dataset=_dataset(inputs),
        # Each item is the index of an image of the search.
        validation_dataset=nncf.Dataset(range(shown)),
        validation_fn=search.answer,
        # The drop at which the overrun is 0.
        max_drop=-search.fp32_overrun,
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MAX_ITERATIONS,
            ranking_subset_size=min(RANKING_IMAGES, max(1, shown // 2)),
            # NNCF cannot stop a pool of workers, which would keep running after the time limit has ended the search.
            num_ranking_workers=1,
        ),
        advanced_quantization_parameters=_ranges(correct_biases),
        **_settings(graph, inputs),
    )


def layers_in_fp32(graph: Graph) -> list[str]:
    """Names of the convolutions of a graph that are not computed in 8 bits."""
    return [name for name, is_int8 in convolutions(graph).items() if not is_int8]


def _in_thread(work: Work, quantize: Callable[..., Graph], *arguments, **named) -> Graph:
    """Runs `quantize` in a thread of its own; Ctrl-C ends the work at its next step.

    NNCF creates and destroys Cores, which breaks the signal stack of the thread it runs in (see graphs.CORE).
    """
    with ThreadPoolExecutor(1) as thread, _working(work):
        done = thread.submit(quantize, *arguments, **named)
        try:
            return done.result()
        except KeyboardInterrupt:
            # Wait for the thread: if it still computed while the program ends, the program would abort.
            INTERRUPTED.set()
            wait([done])
            INTERRUPTED.clear()
            raise


@contextmanager
def _working(work: Work) -> Iterator[None]:
    Loops.work = work
    try:
        yield
    finally:
        Loops.work = ALONE


def _dataset(inputs: Inputs) -> nncf.Dataset:
    # One image per item: NNCF counts items, and ranges over a batch hide the extremes of single images.
    return nncf.Dataset(range(len(inputs[0])), lambda image: chosen(inputs, slice(image, image + 1)))


def _settings(graph: Graph, inputs: Inputs) -> dict:
    kept = dict.fromkeys([*_after_the_maps(graph), *_of_the_branch(graph)])
    attends = any(
        operation.get_type_name() in ATTENTION and operation.get_friendly_name() not in kept
        for operation in graph.get_ops()
    )
    return {
        "preset": nncf.QuantizationPreset.MIXED,
        "subset_size": len(inputs[0]),
        "ignored_scope": nncf.IgnoredScope(names=list(kept)),
        # Keeps the sums between the blocks in FP32. In 8 bits they changed the logits of a small vision transformer by
        # twenty times as much, and it was slower.
        "model_type": nncf.ModelType.TRANSFORMER if attends else None,
    }


def _ranges(correct_biases: bool) -> nncf.AdvancedQuantizationParameters:
    return nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        disable_bias_correction=not correct_biases,
    )


def _after_the_maps(graph: Graph) -> list[str]:
    """Returns the names of the operations from maps to probabilities, and from pooled features to distances.

    They stay in FP32, which costs nothing: 8 bits would leave 256 different logits and fewer probabilities. Whitening
    amplifies the directions in which the training data hardly vary, and with them the rounding of the features.

    Where a class token decides, no mean over cells evens out the rounding. The last layer, on the class token and on
    the patches, then stays in FP32 too: everything that reads the tokens. Of an ensemble, all that follows the members'
    last layers stays, and the last layers of those with a class token.
    """
    properties = properties_of(graph)
    exact = properties.exact_maps
    maps = graph.output("maps").get_node().input_value(0).get_node().get_friendly_name()
    names: dict[str, None] = {}
    waiting = [(graph.output(name).get_node(), name) for name in OUTPUTS if name != "maps" or not exact]
    while waiting:
        operation, output = waiting.pop()
        name, kind = operation.get_friendly_name(), operation.get_type_name()
        if name in names or (exact and name == maps):
            continue
        if properties.members and kind == "Convolution" and not _reads_tokens(operation):
            # The last layer of a member whose maps are exact.
            continue
        if kind not in ("Constant", "Result"):
            names[name] = None
        # The features' pooling is one mean; that of the maps may have several operations.
        is_pooling = output == "distances" and kind == "ReduceMean" and (exact or properties.members)
        is_last = is_pooling or (not exact and kind in TOKENS_CUT)
        if not is_last:
            waiting += [(value.get_node(), output) for value in operation.input_values()]
    return list(names)


def _reads_tokens(convolution: Node) -> bool:
    """Whether the convolution is the last layer of a network with a class token, and reads what is cut from tokens."""
    waiting, layers = [convolution.input_value(0).get_node()], (*ATTENTION, "Convolution", "GroupConvolution", "MatMul")
    while waiting:
        operation = waiting.pop()
        if operation.get_type_name() in TOKENS_CUT:
            return True
        if operation.get_type_name() not in layers:
            waiting += [value.get_node() for value in operation.input_values()]
    return False


def _of_the_branch(graph: Graph) -> list[str]:
    """Returns the names of the operations that depend on the input `attributes`; none if the graph does not take it.

    They stay in FP32. They are tiny, and the sum of what they add and the maps would otherwise be rounded to 8 bits.
    """
    names: dict[str, None] = {}
    waiting = [port for port in graph.inputs if port.any_name == INPUTS[1]]
    while waiting:
        for reader in waiting.pop().get_target_inputs():
            operation = reader.get_node()
            if operation.get_type_name() != "Result" and operation.get_friendly_name() not in names:
                names[operation.get_friendly_name()] = None
                waiting += operation.outputs()
    return list(names)
