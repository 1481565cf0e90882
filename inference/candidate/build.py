"""Makes a candidate for the registry from a checkpoint: exports, quantises, measures and judges it, in one folder."""

import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from rich.console import Console

from conf.settings import Inference
from conf.workspace import write_json
from etl.contract.schema import Card
from inference.candidate.gate import Decision, compare_with_champion, decide, overrun, refuse
from inference.candidate.incumbent import Incumbent
from inference.candidate.making.calibration_set import calibration_images
from inference.candidate.making.export import export_graphs, open_exported
from inference.candidate.making.familiarity import distance_threshold
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import Attempt, quantize_attempts
from inference.candidate.measuring.baseline import ThumbnailBaseline
from inference.candidate.measuring.evaluate import Scored, auroc_differences, auroc_intervals, known_boxes, score_split
from inference.candidate.measuring.speed import describe_machine, measure_footprint, measure_speed, size_mb
from inference.candidate.model_card import describe_model, write_model_card
from inference.candidate.report import describe
from inference.film.known_boxes import FILE as BOXES
from inference.model.graphs import (
    Predict,
    compile_graph,
    open_graph,
    properties_of,
    save_graph,
    with_distance_threshold,
)
from inference.model.network import FittedModel, torch_predict
from inference.model.ten_crop import SUFFIX, with_ten_crops
from training.network.checkpoint import Checkpoint
from training.reading.plan import Split

NUM_COMPARED = 8
"""number of real images on which each exported graph is compared with torch"""


@dataclass(frozen=True)
class CandidateSource:
    """The checkpoint and the data that a candidate is made of."""

    checkpoint: Checkpoint
    card: Card
    """card of the table's version that the checkpoint was trained on"""
    train: Split
    val: Split
    test: Split
    seed: int


def build_candidate(
    source: CandidateSource, champion: Incumbent | None, options: Inference, folder: Path, console: Console
) -> tuple[dict, Decision]:
    """Fills `folder` with torch/, fp32/, fp16/, onnx/, int8/, report.json, boxes.json and the model card.

    Returns the report and the gate's decision.
    """
    checkpoint, test = source.checkpoint, source.test
    console.print(f"[bold]1/7[/] calibrate {checkpoint.model} of epoch {checkpoint.epoch}, learn what is familiar")
    served = fit_served(checkpoint, source.card, source.train, source.val, source.seed)
    console.print("[bold]2/7[/] export to OpenVINO FP32 and FP16, and to ONNX")
    differences = export_graphs(served, folder, calibration_images(source.val, NUM_COMPARED, source.seed))
    console.print("[bold]3/7[/] fit the baseline: logistic regression on thumbnails of the train split")
    baseline = ThumbnailBaseline(source.train, source.seed)
    variants = {
        "baseline": baseline.predict,
        "torch": torch_predict(served.network),
    } | open_exported(folder)
    console.print(f"[bold]4/7[/] AUROC of each precision on the test split, {test.rows} images")
    scored = score_split(_cropped(variants, options), test, options.batch_size, served.properties)
    if champion and champion.predict:
        known = {"champion": champion.predict}
        scored = scored.joined(score_split(known, champion.test, options.batch_size, champion.properties))
    console.print("[bold]5/7[/] quantise to INT8, and gate")
    scored, decision, attempts = _quantize(source, champion, options, variants["fp32"], scored, folder, console)
    variants["int8"] = compile_graph(open_graph(folder / "int8"))
    _set_distance_threshold(folder / "int8", variants["int8"], source.val, options.batch_size)
    console.print("[bold]6/7[/] latency, throughput, memory")
    speeds = {
        name: asdict(measure_speed(variants[name], test.size_px, options.batch_size))
        | asdict(measure_footprint(name, folder / name, options.batch_size))
        | {"size_mb": size_mb(folder / name)}
        for name in ("torch", "fp32", "fp16", "onnx", "int8")
    }
    report = describe(checkpoint.findings, scored, decision, speeds, source.seed)
    report["data"] |= {"split": test.name, "delta_version": checkpoint.delta_version, "source": source.card.title}
    report |= {
        "lineage": _lineage(served),
        "machine": describe_machine(),
        "batch_size": options.batch_size,
        "attempts": [asdict(attempt) for attempt in attempts],
        "export_difference": differences,
        "familiarity": _familiarity(scored, folder),
    }
    write_json(folder / "report.json", report)
    write_json(folder / BOXES, known_boxes(test))
    card = describe_model(properties_of(open_graph(folder / "int8")), source.card, scored, report, source.seed)
    write_model_card(card, folder)
    return report, decision


def _quantize(
    source: CandidateSource,
    champion: Incumbent | None,
    options: Inference,
    fp32: Predict,
    scored: Scored,
    folder: Path,
    console: Console,
) -> tuple[Scored, Decision, list[Attempt]]:
    """Quantises until the gate passes or no more careful way is left; last scores, decision, and all attempts."""
    findings, seed = source.checkpoint.findings, source.seed
    properties = properties_of(open_graph(folder / "fp32"))
    attempts = []

    @cache
    def known() -> Scored:
        return score_split({"fp32": fp32}, source.val, options.batch_size, properties, end=False)

    def val_overrun(predict: Predict) -> float:
        scored = score_split({"int8": predict}, source.val, options.batch_size, properties, end=False)
        int8 = known().joined(scored)
        if not np.isfinite(int8.probabilities["int8"]).all():
            return np.inf
        difference = auroc_differences(int8, "fp32", "int8", seed)
        return overrun(difference, options.max_mean_drop, options.max_finding_drop)

    for attempt in quantize_attempts(
        folder / "fp32",
        folder / "int8",
        source.train,
        options.num_calibration_images,
        seed,
        fp32,
        val_overrun,
    ):
        attempts.append(attempt)
        int8 = {"int8": compile_graph(open_graph(folder / "int8"))}
        added = score_split(_cropped(int8, options), source.test, options.batch_size, properties)
        scored = scored.joined(added)
        decision = decide(
            findings,
            auroc_intervals(scored, "fp32", seed),
            auroc_intervals(scored, "int8", seed),
            auroc_differences(scored, "fp32", "int8", seed),
            options.max_mean_drop,
            options.max_finding_drop,
            scored.num_patients,
        )
        console.print(
            f"  {attempt.name}, {attempt.calibration_images} images: {'; '.join(decision.reasons)}", markup=False
        )
        if decision.passed or not decision.quantisation_costs or len(attempts) == options.num_attempts:
            break
    if champion and champion.predict:
        difference = auroc_differences(scored, "champion", "int8", seed)
        decision = compare_with_champion(decision, difference, champion.version, options.max_mean_drop)
    elif champion:
        decision = refuse(decision, f"champion version {champion.version} cannot be compared with: {champion.why_not}")
    return scored, decision, attempts


def _cropped(variants: dict[str, Predict], options: Inference) -> dict[str, Predict]:
    """The variants, and with options.ten_crop also the ten-crop version of each."""
    if not options.ten_crop:
        return variants
    crops = {name + SUFFIX: with_ten_crops(predict) for name, predict in variants.items() if name != "baseline"}
    return variants | crops


def _set_distance_threshold(int8: Path, predict: Predict, val: Split, batch_size: int) -> None:
    """Writes the INT8 graph's own distance threshold into it, because quantisation changes the distances."""
    graph = open_graph(int8)
    scored = score_split({"int8": predict}, val, batch_size, properties_of(graph))
    graph = with_distance_threshold(graph, distance_threshold(scored.distances["int8"]))
    # Written beside and then moved into place, because an open graph still reads its weights from its files.
    written = int8.with_name("int8-with-threshold")
    save_graph(graph, written)
    shutil.rmtree(int8)
    written.rename(int8)


def _familiarity(scored: Scored, folder: Path) -> dict[str, dict[str, float]]:
    """Precision -> its distance threshold, and the share of the test split's images within that threshold."""
    thresholds = {
        name: properties_of(open_graph(folder / name)).distance_threshold for name in ("fp32", "fp16", "int8")
    }
    return {
        name: {"distance_threshold": threshold, "test_familiar": float(np.mean(scored.distances[name] <= threshold))}
        for name, threshold in thresholds.items()
    }


def _lineage(served: FittedModel) -> dict:
    properties = served.properties
    return {
        key: getattr(properties, key)
        for key in ("findings", "size_px", "network", "run_id", "delta_table_id", "delta_version", "commit")
    }
