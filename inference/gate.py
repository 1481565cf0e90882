"""The gate: how much AUROC may INT8 cost before it must not become the champion? Plain numbers, no files."""

from dataclasses import asdict, dataclass
from math import isnan, nan

import numpy as np

from training.metrics import mean_over_findings


@dataclass(frozen=True)
class Decision:
    """What the gate says and why."""

    passed: bool
    reasons: list[str]
    """one sentence per bound that does not hold; one that sums up what was checked where all hold"""
    mean_drop: float
    """of the mean AUROC over the compared findings; NaN when nothing was measured; negative is a gain"""
    drops: dict[str, float]
    """compared finding -> FP32 AUROC minus INT8 AUROC"""
    undefined: list[str]
    """findings without an AUROC in the test split (no positives or no negatives): not compared"""

    def to_dict(self) -> dict:
        """For JSON: NaN becomes null."""
        return {**asdict(self), "mean_drop": None if isnan(self.mean_drop) else self.mean_drop}


def decide(
    fp32: np.ndarray, int8: np.ndarray, findings: list[str], max_mean_drop: float, max_finding_drop: float
) -> Decision:
    """Compares AUROCs per finding before and after quantisation.

    fp32, int8: (findings,) AUROCs, 0..1; NaN is undefined. max_mean_drop, max_finding_drop: largest accepted fall.
    A finding that FP32 has a number for and INT8 has not (its scores are not finite) fails the gate; one that is
    undefined for FP32 is listed and not compared. With nothing compared the gate does not pass.
    """
    undefined = [finding for finding, before in zip(findings, fp32, strict=True) if isnan(before)]
    lost = [f for f, before, after in zip(findings, fp32, int8, strict=True) if isnan(after) and not isnan(before)]
    compared = ~np.isnan(fp32) & ~np.isnan(int8)
    drops = {findings[index]: float(fp32[index] - int8[index]) for index in np.flatnonzero(compared)}
    if not drops:
        return Decision(False, ["nothing measured: no finding has an AUROC in the test split"], nan, {}, undefined)

    mean_drop = mean_over_findings(fp32[compared]) - mean_over_findings(int8[compared])
    reasons = [f"{finding}: INT8 gives no AUROC, its scores are not finite" for finding in lost]
    # `not <=` instead of `>`: a bound that is NaN refuses.
    if not mean_drop <= max_mean_drop:
        reasons.append(f"mean AUROC falls by {mean_drop:.4f}, at most {max_mean_drop} (inference.max_mean_drop)")
    reasons += [
        f"{finding}: AUROC falls by {drop:.4f}, at most {max_finding_drop} (inference.max_finding_drop)"
        for finding, drop in drops.items()
        if not drop <= max_finding_drop
    ]
    if reasons:
        return Decision(False, reasons, mean_drop, drops, undefined)
    worst = max(drops, key=drops.get)
    summary = (
        f"mean AUROC falls by {mean_drop:.4f} (at most {max_mean_drop}), the worst finding, {worst}, by "
        f"{drops[worst]:.4f} (at most {max_finding_drop})"
    )
    return Decision(True, [summary], mean_drop, drops, undefined)
