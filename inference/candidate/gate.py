"""The gate: may an INT8 model become the champion? Decides on plain numbers and reads no files.

What counts is not the measured drop of AUROC but the upper end of its 95% interval, paired and by patient. If the test
split is too small to show that the model is as good as before, the model fails (non-inferiority, as in device trials).
An interval from a handful of patients is too narrow, so findings with so few patients are named beside the decision.
"""

from dataclasses import asdict, dataclass, replace
from math import inf, isnan

import numpy as np

from training.measures.intervals import Intervals

CHANCE = 0.5
AT_CHANCE = f"and chance is {CHANCE}"
NOTHING_SHOWN = "the test split shows nothing"
FEW_PATIENTS = 5
"""number of patients with or without a finding below which its interval lets a clear loss pass too often, see tests"""


@dataclass(frozen=True)
class Drop:
    """How much AUROC drops; negative is a gain."""

    value: float
    worst: float
    """upper end of the 95% interval; the value itself if fewer than two patients have the finding or lack it"""

    @classmethod
    def of(cls, difference: Intervals, index: int) -> "Drop":
        """Converts a difference, after minus before, to a drop."""
        value, worst = -float(difference.values[index]), -float(difference.low[index])
        return cls(value, value if isnan(worst) else worst)

    def __str__(self) -> str:
        return f"{self.value:.4f} (up to {self.worst:.4f})"


@dataclass(frozen=True)
class Decision:
    """The gate's decision and its reasons."""

    passed: bool
    reasons: list[str]
    """one sentence per bound that is exceeded; what was checked if none is"""
    mean_drop: Drop | None
    """drop of the mean AUROC over the compared findings, from FP32 to INT8; None if nothing was measured"""
    drops: dict[str, Drop]
    """compared finding -> drop of its AUROC from FP32 to INT8"""
    undefined: list[str]
    """findings without an AUROC in the test split (no positives or no negatives): not compared"""
    few_patients: list[str]
    """compared findings with fewer than FEW_PATIENTS patients with or without them: passing says little about them"""
    quantisation_costs: bool = False
    """whether the model fails because of quantisation: a more careful one may pass"""
    champion_drop: Drop | None = None
    """drop of the mean AUROC from the champion to this model; None if there is none or it cannot be compared"""
    out_of_time: bool = False
    """whether the time for quantising ended before a more careful way was tried, or tried to its end"""

    def to_dict(self) -> dict:
        """Returns the decision as a dictionary for JSON."""
        return asdict(self)


def decide(
    findings: list[str],
    fp32: Intervals,
    int8: Intervals,
    difference: Intervals,
    max_mean_drop: float,
    max_finding_drop: float,
    num_patients: list[int],
) -> Decision:
    """Decides whether quantisation costs too much, and whether the model is better than chance.

    fp32, int8: AUROC of each finding, then their mean; NaN is undefined. difference: INT8 minus FP32, same images.
    max_mean_drop, max_finding_drop: largest accepted drop, which the upper end of the interval must not exceed.
    num_patients: number of patients with each finding, or without it, whichever is smaller.
    If a finding has an AUROC in FP32 but none in INT8 (its scores are not finite), the model fails. A finding that is
    undefined in FP32 is listed and not compared. If no finding can be compared, the model fails.
    """
    columns = range(len(findings))
    undefined = [findings[index] for index in columns if isnan(fp32.values[index])]
    lost = [findings[index] for index in columns if isnan(int8.values[index]) and not isnan(fp32.values[index])]
    drops = {findings[index]: Drop.of(difference, index) for index in columns if not isnan(difference.values[index])}
    if not drops:
        return Decision(False, ["nothing measured: no finding has an AUROC in the test split"], None, {}, undefined, [])
    counts = zip(findings, num_patients, strict=True)
    few = [finding for finding, count in counts if count < FEW_PATIENTS and finding in drops]

    mean_drop = Drop.of(difference, -1)
    reasons = [f"{finding}: INT8 gives no AUROC because its scores are not finite" for finding in lost]
    # `not <=` instead of `>`, so that the model fails if a bound is NaN.
    if not mean_drop.worst <= max_mean_drop:
        reasons.append(
            f"mean AUROC falls by {mean_drop}, but at most {max_mean_drop} is allowed (inference.max_mean_drop)"
        )
    reasons += [
        f"{finding}: AUROC falls by {drop}, but at most {max_finding_drop} is allowed (inference.max_finding_drop)"
        for finding, drop in drops.items()
        if not drop.worst <= max_finding_drop
    ]
    costs = bool(reasons)
    if isnan(difference.low[-1]):
        reasons.append(f"{NOTHING_SHOWN}: no finding has two patients with it and two without it")
    low = int8.values[-1] if np.isnan(int8.low[-1]) else int8.low[-1]
    if not low > CHANCE:
        reasons.append(f"mean AUROC is {int8.values[-1]:.3f}, but its interval reaches down to {low:.3f}, {AT_CHANCE}")
    if reasons:
        return Decision(False, reasons, mean_drop, drops, undefined, few, costs)
    worst = max(drops, key=lambda finding: drops[finding].worst)
    summary = (
        f"drop of the mean AUROC {mean_drop}, allowed {max_mean_drop}; largest drop of a finding: {worst} "
        f"{drops[worst]}, allowed {max_finding_drop} (a negative drop is a gain)"
    )
    return Decision(True, [summary], mean_drop, drops, undefined, few)


def decide_at_best(
    findings: list[str], fp32: Intervals, max_mean_drop: float, max_finding_drop: float, num_patients: list[int]
) -> Decision:
    """The decision about an INT8 graph that has exactly FP32's scores: quantising with more care cannot do better.

    The parameters are those of decide. Compare the decision with the champion, from FP32's scores, as that of INT8.
    """
    return decide(findings, fp32, fp32, no_difference(fp32), max_mean_drop, max_finding_drop, num_patients)


def no_difference(measured: Intervals) -> Intervals:
    """The difference of a measure to itself: 0, with an interval from 0 to 0, wherever it is defined."""
    zeros = {name: np.where(np.isnan(values), np.nan, 0.0) for name, values in vars(measured).items()}
    return Intervals(**zeros | {"num_resamples": measured.num_resamples})


def next_step(decision: Decision) -> str:
    """What may help a model that the gate has refused."""
    if not decision.drops:
        return "test on images with and without a finding (etl.test_fraction, or the source's own test split)"
    if any(NOTHING_SHOWN in reason for reason in decision.reasons):
        return "test on more patients (etl.test_fraction, or the source's own test split)"
    if any(AT_CHANCE in reason for reason in decision.reasons):
        return "train longer or on more images, or test on more patients"
    if decision.quantisation_costs:
        time = "give quantising more time (inference.max_minutes), or " if decision.out_of_time else ""
        return f"{time}allow a larger drop (inference.max_mean_drop, inference.max_finding_drop) and run this again"
    return "train another model"


def overrun(difference: Intervals, max_mean_drop: float, max_finding_drop: float) -> float:
    """Returns by how much the worst drop of AUROC exceeds its bound: 0 or less if none does, inf if none is known.

    The parameters are those of decide.
    """
    bounds = [*[max_finding_drop] * (len(difference.values) - 1), max_mean_drop]
    overruns = [Drop.of(difference, index).worst - bound for index, bound in enumerate(bounds)]
    return max((one for one in overruns if not isnan(one)), default=inf)


def compare_with_champion(decision: Decision, difference: Intervals, version: int, max_mean_drop: float) -> Decision:
    """Returns the decision after a comparison with the present champion on the same images.

    difference: AUROC of the candidate minus that of champion `version`. Between two trainings AUROC differs by chance,
    more than between two precisions. The candidate is therefore refused only if its mean drops by more than
    max_mean_drop, or if the drop is beyond doubt (the whole interval is a drop).
    """
    drop, best = Drop.of(difference, -1), -float(difference.high[-1])
    if drop.value <= max_mean_drop and not best > 0:
        return replace(
            decision,
            reasons=[*decision.reasons, *([f"not worse than champion version {version}"] if decision.passed else [])],
            champion_drop=drop,
        )
    reason = f"mean AUROC is {drop} below the champion's (version {version})"
    return replace(refuse(decision, reason), champion_drop=drop)


def refuse(decision: Decision, reason: str) -> Decision:
    """Returns the decision with this reason against the candidate; reasons for it are dropped."""
    return replace(decision, passed=False, reasons=[*([] if decision.passed else decision.reasons), reason])
