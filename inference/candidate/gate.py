"""The gate: which INT8 model may become the champion? Plain numbers, no files.

What counts is not the measured fall of AUROC but the upper end of its 95% interval, paired and by patient: a test split
too small to show that a model is as good as before lets it not pass (non-inferiority, as in trials of devices).
An interval of a handful of patients is too narrow: findings that rest on so few are named beside the decision.
"""

from dataclasses import asdict, dataclass, replace
from math import inf, isnan

import numpy as np

from training.measures.intervals import Intervals

CHANCE = 0.5
FEW_PATIENTS = 5
"""with a finding, or without it, below which its interval lets a clear loss pass too often, see tests"""


@dataclass(frozen=True)
class Drop:
    """How much AUROC falls; negative is a gain."""

    value: float
    worst: float
    """upper end of the 95% interval; the value itself where fewer than two patients have a positive or a negative"""

    @classmethod
    def of(cls, difference: Intervals, index: int) -> "Drop":
        """The drop that a difference, after minus before, stands for."""
        value, worst = -float(difference.values[index]), -float(difference.low[index])
        return cls(value, value if isnan(worst) else worst)

    def __str__(self) -> str:
        return f"{self.value:.4f} (up to {self.worst:.4f})"


@dataclass(frozen=True)
class Decision:
    """What the gate says and why."""

    passed: bool
    reasons: list[str]
    """one sentence per bound that does not hold; what was checked, where all hold"""
    mean_drop: Drop | None
    """of the mean AUROC over the compared findings, FP32 to INT8; None when nothing was measured"""
    drops: dict[str, Drop]
    """compared finding -> FP32 to INT8"""
    undefined: list[str]
    """findings without an AUROC in the test split (no positives or no negatives): not compared"""
    few_patients: list[str]
    """compared findings of fewer than FEW_PATIENTS patients with, or without it: passing shows little of them"""
    quantisation_costs: bool = False
    """whether it is quantisation that fails it: a more careful one may pass"""
    champion_drop: Drop | None = None
    """of the mean AUROC, from the present champion; None where there is none, or it cannot be compared"""

    def to_dict(self) -> dict:
        """For JSON."""
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
    """Does quantisation cost too much, and does the model know anything at all?

    fp32, int8: AUROC of each finding and their mean; NaN is undefined. difference: INT8 minus FP32 of the same images.
    max_mean_drop, max_finding_drop: largest accepted fall, which the upper end of its interval must not exceed.
    num_patients: of each finding, with it or without it, whichever are fewer.
    A finding that FP32 has a number for and INT8 has not (its scores are not finite) fails the gate; one that is
    undefined for FP32 is listed and not compared. With nothing compared the gate does not pass.
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
    reasons = [f"{finding}: INT8 gives no AUROC, its scores are not finite" for finding in lost]
    # `not <=` instead of `>`: a bound that is NaN refuses.
    if not mean_drop.worst <= max_mean_drop:
        reasons.append(f"mean AUROC falls by {mean_drop}, at most {max_mean_drop} (inference.max_mean_drop)")
    reasons += [
        f"{finding}: AUROC falls by {drop}, at most {max_finding_drop} (inference.max_finding_drop)"
        for finding, drop in drops.items()
        if not drop.worst <= max_finding_drop
    ]
    costs = bool(reasons)
    if isnan(difference.low[-1]):
        reasons.append("nothing shown: no finding has two patients with it and two without it in the test split")
    low = int8.values[-1] if np.isnan(int8.low[-1]) else int8.low[-1]
    if not low > CHANCE:
        reasons.append(
            f"mean AUROC is {int8.values[-1]:.3f}, and as low as {low:.3f} by its interval: chance is {CHANCE}"
        )
    if reasons:
        return Decision(False, reasons, mean_drop, drops, undefined, few, costs)
    worst = max(drops, key=lambda finding: drops[finding].worst)
    summary = (
        f"mean AUROC falls by {mean_drop}, at most {max_mean_drop}; the worst finding, {worst}, by {drops[worst]}, "
        f"at most {max_finding_drop}"
    )
    return Decision(True, [summary], mean_drop, drops, undefined, few)


def overrun(difference: Intervals, max_mean_drop: float, max_finding_drop: float) -> float:
    """By how much the worst fall of AUROC is beyond its bound: 0 or less where all are within, inf where none is known.

    The parameters are decide's.
    """
    bounds = [*[max_finding_drop] * (len(difference.values) - 1), max_mean_drop]
    overruns = [Drop.of(difference, index).worst - bound for index, bound in enumerate(bounds)]
    return max((one for one in overruns if not isnan(one)), default=inf)


def compare_with_champion(decision: Decision, difference: Intervals, version: int, max_mean_drop: float) -> Decision:
    """The decision once the present champion's AUROC on the same images is known.

    difference: the candidate's minus that of champion `version`. Another training's AUROC differs by chance, more than
    quantisation's: the candidate is refused when its mean falls by more than max_mean_drop, or falls beyond doubt (the
    whole interval is a fall).
    """
    drop, best = Drop.of(difference, -1), -float(difference.high[-1])
    if drop.value <= max_mean_drop and not best > 0:
        return replace(
            decision,
            reasons=[*decision.reasons, *([f"not worse than champion version {version}"] if decision.passed else [])],
            champion_drop=drop,
        )
    reason = f"mean AUROC is by {drop} below that of the champion, version {version}"
    return replace(refuse(decision, reason), champion_drop=drop)


def refuse(decision: Decision, reason: str) -> Decision:
    """The decision with a reason, or one more, against the candidate."""
    return replace(decision, passed=False, reasons=[*([] if decision.passed else decision.reasons), reason])
