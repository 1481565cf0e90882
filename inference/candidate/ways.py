"""The ways of quantising a candidate to INT8, and how a graph is judged on the test split."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import monotonic

import numpy as np

from conf.settings import Inference
from inference.candidate.gate import (
    Decision,
    compare_with_champion,
    decide,
    decide_at_best,
    no_difference,
    overrun,
    refuse,
)
from inference.candidate.incumbent import Incumbent
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.layer_search import RANKING_IMAGES, LayerSearch
from inference.candidate.making.quantize import Work, keep_sensitive_layers, quantize
from inference.candidate.making.time_limit import TimeLimit
from inference.candidate.measuring.evaluate import Scored, auroc_differences, auroc_intervals, score_split
from inference.candidate.tries import Judged, Made, NoUse, Tries, Try, Way, try_ways
from inference.model.graphs import Graph, Predict, compile_graph, open_graph
from inference.model.inputs import Inputs, chosen
from inference.model.properties import Properties
from inference.model.ten_crop import add_ten_crops
from training.reading.plan import Split


@dataclass(frozen=True)
class Quantising:
    """What INT8 graphs of a candidate are made from and judged by."""

    fp32: Path
    """folder of the FP32 graph"""
    train: Split
    val: Split
    test: Split
    seed: int
    options: Inference
    scored: Scored
    """the test split by FP32, and by the champion as `champion` if it can be compared"""
    champion: Incumbent | None
    properties: Properties

    def run(self, say: Callable[[str], None]) -> tuple[Tries, Decision]:
        """Quantises until the gate passes, or until no more careful way can help or is left; the gate's decision."""
        ways = [
            Way("plain", self._plainly),
            Way("biases corrected", self._with_corrected_biases, correct_biases=True),
            Way("sensitive layers in FP32", self._with_sensitive_layers),
        ]
        options = self.options
        tries = try_ways(ways[: options.num_attempts], self._judge, self._at_best(), options.max_minutes, say)
        judged = tries.best.judged
        decision = self._compare(replace(judged.decision, out_of_time=tries.out_of_time), judged.scored, "int8")
        if self.champion and not self.champion.predict:
            cannot = f"champion version {self.champion.version} cannot be compared with: {self.champion.why_not}"
            decision = refuse(decision, cannot)
        return tries, decision

    @property
    def bounds(self) -> tuple[float, float]:
        """The largest drops of the mean AUROC and of a single finding's AUROC that the gate accepts."""
        return self.options.max_mean_drop, self.options.max_finding_drop

    @cached_property
    def inputs(self) -> Inputs:
        """of the images for the calibration"""
        return calibration_inputs(self.train, self.options.num_calibration_images, self.seed, self.properties)

    @cached_property
    def _predict_fp32(self) -> Predict:
        return compile_graph(open_graph(self.fp32))

    def _plainly(self, limit: TimeLimit, title: str, best: Try | None) -> Made:
        return Made(quantize(self.fp32, self.inputs, work=Work(title, limit)))

    def _with_corrected_biases(self, limit: TimeLimit, title: str, best: Try | None) -> Made:
        return Made(quantize(self.fp32, self.inputs, correct_biases=True, work=Work(title, limit)))

    def _with_sensitive_layers(self, limit: TimeLimit, title: str, best: Try) -> Made:
        """Returns layers of the best graph so far to FP32 until the gate would pass it on the validation split."""
        fp32 = limit.checked(self._predict_fp32, "scoring the validation split")
        known = self._score(fp32, self.val, "fp32", title)
        at_best = overrun(no_difference(auroc_intervals(known, "fp32", self.seed)), *self.bounds)
        if not at_best <= 0:
            raise NoUse("no finding has an AUROC in the validation split, by which layers would be chosen")

        def val_overrun(predict: Predict) -> float:
            both = known.joined(self._score(predict, self.val, "int8", title))
            if not np.isfinite(both.probabilities["int8"]).all():
                return np.inf
            return overrun(auroc_differences(both, "fp32", "int8", self.seed), *self.bounds)

        started = monotonic()
        int8 = limit.checked(compile_graph(best.made.graph), "scoring the validation split")
        before = val_overrun(int8)
        if before <= 0:
            raise NoUse(f"{best.way.name} meets the bounds on the validation split, by which layers would be chosen")
        shown = chosen(self.inputs, slice(2 * RANKING_IMAGES))
        search = LayerSearch(shown, fp32, val_overrun, at_best, before, monotonic() - started, limit, title)
        work = Work(title, limit, search)
        graph = keep_sensitive_layers(self.fp32, self.inputs, correct_biases=best.way.correct_biases, work=work)
        return Made(graph, search.cut_short)

    def _score(self, predict: Predict, split: Split, name: str, title: str, end: bool = False) -> Scored:
        variants = {name: predict}
        return score_split(variants, split, self.options.batch_size, self.properties, title=title, end=end)

    def _judge(self, graph: Graph, limit: TimeLimit, title: str) -> Judged:
        options, findings = self.options, self.properties.findings
        int8 = {"int8": limit.checked(compile_graph(graph), "scoring the test split")}
        variants = add_ten_crops(int8) if options.ten_crop else int8
        scored = self.scored.joined(score_split(variants, self.test, options.batch_size, self.properties, title=title))
        fp32, int8 = (auroc_intervals(scored, name, self.seed) for name in ("fp32", "int8"))
        difference = auroc_differences(scored, "fp32", "int8", self.seed)
        decision = decide(findings, fp32, int8, difference, *self.bounds, scored.num_patients)
        return Judged(scored, decision, overrun(difference, *self.bounds))

    def _at_best(self) -> Decision:
        fp32 = auroc_intervals(self.scored, "fp32", self.seed)
        decision = decide_at_best(self.properties.findings, fp32, *self.bounds, self.scored.num_patients)
        return self._compare(decision, self.scored, "fp32")

    def _compare(self, decision: Decision, scored: Scored, name: str) -> Decision:
        """The decision after the comparison of a variant with the champion, if there is one to compare with."""
        if not (self.champion and self.champion.predict):
            return decision
        difference = auroc_differences(scored, "champion", name, self.seed)
        return compare_with_champion(decision, difference, self.champion.version, self.options.max_mean_drop)
