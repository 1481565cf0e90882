"""Answers what NNCF's accuracy control asks while it looks for the layers that must stay in FP32, within a time limit.

It asks for a score, of which more is better, in this order:

1. of the FP32 graph, for one image and for all; then of the INT8 graph, for all
2. the ranking: for each group of layers, of the INT8 graph with this group in FP32, for a part of the images
3. of the INT8 graph with the first, the first two, ... groups of the ranking in FP32, for all images, until it meets
   its bound. If a group makes it worse, NNCF takes it back and ranks the others anew.

For all images the score comes from the drop of AUROC on the validation split, in the ranking from the logits.
"""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic

import numpy as np
from scipy.special import logit

from conf.progress import say
from inference.candidate.making.time_limit import TimeIsUp, TimeLimit
from inference.model.graphs import Answer, CompiledModel, Predict, predict_with
from inference.model.inputs import Inputs, chosen

RANKING_IMAGES = 64
"""largest number of images, those that 8 bits change most, by which groups of layers are ranked"""
FEWEST_IMAGES = 8
"""smallest number of images to which a ranking is cut down, so that it fits into the time that is left"""
BATCH_SIZE = 16
SEARCH = "the search for sensitive layers"
END = 2.0
"""score that ends NNCF's search with the graph that it asks about: the score of FP32 is 1"""


class LayerSearch:
    """One search; `answer` is NNCF's validation function."""

    def __init__(
        self,
        inputs: Inputs,
        reference: Predict,
        val_overrun: Callable[[Predict], float],
        fp32_overrun: float,
        int8_overrun: float,
        val_s: float,
        limit: TimeLimit,
        title: str,
    ):
        """inputs: what a graph takes for the images to search with. reference: predicts in FP32. limit: when the search
        must have ended.

        val_overrun: by how much a graph's drop of AUROC on the validation split exceeds its bound. fp32_overrun,
        int8_overrun: the same of the FP32 graph, 0 or less, and of the INT8 graph, in which NNCF is to search. val_s:
        seconds that val_overrun takes.
        """
        self.inputs, self.val_overrun, self.limit, self.title = inputs, val_overrun, limit, title
        self.fp32_overrun, self.overruns = fp32_overrun, [int8_overrun]
        self.exact = self._logits(reference, range(self.num_images))
        self.changes = np.empty(0)
        """mean square of the change of INT8's logits, for each image"""
        self.num_fp32_asked, self.num_groups, self.chosen = 0, 0, []
        self.val_s, self.image_s, self.ranking_s, self.ranking_since = val_s, 0.0, 0.0, 0.0
        self.cut_short = ""
        """what the time did not suffice for, if the search ended for lack of time"""

    @property
    def num_images(self) -> int:
        return len(self.inputs[0])

    def start_ranking(self, num_groups: int) -> None:
        """The next answers rank so many groups of layers."""
        self.num_groups, self.chosen, self.ranking_since = num_groups, [], monotonic()

    def end_ranking(self) -> None:
        """The groups are ranked."""
        self.num_groups, self.ranking_s = 0, monotonic() - self.ranking_since

    def answer(self, compiled: CompiledModel, items: Iterable[int]) -> tuple[float, list[float]]:
        """The score of a graph, and the likeness of its logits to FP32's for each image. items: indices of images.

        Raises TimeIsUp if the time ends before all groups are ranked. Afterwards the search ends with what it has.
        """
        indices, predict = list(items), predict_with(compiled)
        if self.num_fp32_asked < 2:
            self.num_fp32_asked += 1
            return 1.0, [0.0] * len(indices)
        if self.num_groups:
            return self._rank(predict, indices), []
        if len(self.changes):
            return self._decide(predict), [0.0] * len(indices)
        self.limit.check(SEARCH)
        started = monotonic()
        self.changes = self._changes(predict, indices)
        self.image_s = (monotonic() - started) / len(indices)
        return self._score(self.overruns[0]), (-self.changes).tolist()

    def _score(self, overrun: float) -> float:
        # FP32 gets 1, because NNCF divides by it.
        return 1 + self.fp32_overrun - overrun

    def _rank(self, predict: Predict, indices: list[int]) -> float:
        if not self.chosen:
            # NNCF has just made and compiled the graph of the first group.
            graph_s = monotonic() - self.ranking_since
            work = f"ranking {self.num_groups} groups of layers"
            each_s = (self.limit.left_s - self.val_s) / self.num_groups
            number = int(min(len(indices), (each_s - graph_s) / self.image_s))
            fewest = min(FEWEST_IMAGES, len(indices))
            self.limit.check(work, self.val_s + self.num_groups * (graph_s + fewest * self.image_s))
            worst_first = sorted(indices, key=lambda index: -self.changes[index])
            self.chosen = worst_first[: max(fewest, number)]
        self.limit.check(SEARCH)
        return -float(self._changes(predict, self.chosen).mean())

    def _decide(self, predict: Predict) -> float:
        started = monotonic()
        try:
            self.limit.check(SEARCH, self.val_s)
            overrun = self.val_overrun(self.limit.checked(predict, SEARCH))
            self.val_s = monotonic() - started
            self.overruns.append(overrun)
            verdict = "meets its bound" if overrun <= 0 else f"exceeds its bound by {overrun:.4f}"
            say(f"{self.title}: try {len(self.overruns) - 1}, the drop of AUROC on the validation split {verdict}")
            if overrun > self.overruns[-2]:
                # NNCF would now rank the other groups anew, and can only be stopped without a graph then.
                self.limit.check("ranking the other groups anew", self.ranking_s + self.val_s)
        except TimeIsUp as why:
            self.cut_short = str(why)
            return END
        return self._score(overrun)

    def _changes(self, predict: Predict, indices: Sequence[int]) -> np.ndarray:
        return np.square(self._logits(predict, indices) - self.exact[indices]).mean(axis=1)

    def _logits(self, predict: Predict, indices: Sequence[int]) -> np.ndarray:
        batches = ([*indices[at : at + BATCH_SIZE]] for at in range(0, len(indices), BATCH_SIZE))
        return np.concatenate([logits_of(predict(*chosen(self.inputs, batch))) for batch in batches])


def logits_of(answer: Answer) -> np.ndarray:
    """(images, findings) float64, finite: probabilities are clipped to 1e-6 from 0 and 1."""
    return logit(np.clip(answer.probabilities.astype(np.float64), 1e-6, 1 - 1e-6))
