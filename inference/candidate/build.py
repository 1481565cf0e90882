"""Makes a candidate for the registry from a checkpoint: exports, quantises, measures and judges it, in one folder."""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from conf.errors import InputError
from conf.settings import MODES, Inference
from conf.writing import write_json
from etl.contract.images.lungs.files import describe_network
from etl.contract.schema import Card
from inference.candidate.gate import Decision
from inference.candidate.incumbent import Incumbent
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.export import TOLERANCES, export_graphs, open_exported
from inference.candidate.making.familiarity import distance_threshold
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import layers_in_fp32
from inference.candidate.making.reference_films import draw_reference
from inference.candidate.making.unsure import add_bounds
from inference.candidate.measuring.answers import describe_answers
from inference.candidate.measuring.baseline import ThumbnailBaseline
from inference.candidate.measuring.evaluate import Scored, known_boxes, score_split
from inference.candidate.measuring.speed import describe_machine, measure_footprint, measure_speed, size_mb
from inference.candidate.model_card import describe_model, write_model_card
from inference.candidate.report import describe
from inference.candidate.study import describe_registration, describe_training
from inference.candidate.tries import Try
from inference.candidate.ways import Quantising
from inference.film.known_boxes import FILE as BOXES
from inference.model.graphs import compile_graph, open_graph, properties_of, save_graph, with_distance_threshold
from inference.model.networks.fitted import FittedModel, torch_predict
from inference.model.own_test import write_own_test
from inference.model.properties import LUNGS
from inference.model.ten_crop import add_ten_crops
from inference.model.variants import open_variant
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
    about_table: dict
    """see describe_table"""
    train: Split
    val: Split
    test: Split
    seed: int


def copy_network(card: Card, folder: Path) -> None:
    """Copies the lung network that cropped the table's films into the model's folder, so that it travels along.

    Raises InputError if the folder that etl.lungs named no longer has it.
    """
    there = card.settings["lungs"]
    try:
        is_same = describe_network(there)["sha256"] == card.lungs["sha256"]
    except InputError as error:
        raise InputError(f"the network that cropped {card.title} is needed, put it back: {error}") from error
    if not is_same:
        raise InputError(
            f"{there} has another lung network than the one that cropped {card.title}: put that one back, or run the "
            "ETL and the training again"
        )
    shutil.copytree(there, folder, dirs_exist_ok=True)


def build_candidate(
    source: CandidateSource,
    champion: Incumbent | None,
    options: Inference,
    device: torch.device,
    folder: Path,
    console: Console,
) -> tuple[dict, Decision]:
    """Fills `folder` with torch/, fp32/, fp16/, onnx/, int8/, report.json, boxes.json, reference.npz and the card.

    device: computes torch's answers on the test split; speeds are measured on the CPU, on which the model is served.
    Returns the report and the gate's decision.
    """
    checkpoint, test = source.checkpoint, source.test
    what = f"{checkpoint.model} of epoch {checkpoint.epoch}"
    if checkpoint.members:
        what = f"{checkpoint.model} of {len(checkpoint.members)} members"
    if source.card.lungs:
        copy_network(source.card, folder / LUNGS)
    console.print(f"[bold]1/7[/] calibrate {what}, learn what is familiar")
    served = fit_served(checkpoint, source.card, source.train, source.val, source.seed)
    console.print("[bold]2/7[/] export to OpenVINO FP32 and FP16, and to ONNX")
    compared = calibration_inputs(source.val, NUM_COMPARED, source.seed, served.properties)
    differences = export_graphs(served, folder, compared)
    console.print("[bold]3/7[/] fit the baseline: logistic regression on thumbnails of the train split")
    baseline = ThumbnailBaseline(source.train, source.seed)
    variants = {
        "baseline": baseline.predict,
        "torch": torch_predict(served.network),
    } | open_exported(folder)
    console.print(f"[bold]4/7[/] AUROC of each precision on the test split, {test.rows} images, torch on {device}")
    measured = variants | {"torch": torch_predict(served.network, device)}
    measured = add_ten_crops(measured) if options.ten_crop else measured
    scored = score_split(measured, test, options.batch_size, served.properties)
    if champion and champion.predict:
        known = {"champion": champion.predict}
        scored = scored.joined(score_split(known, champion.test, options.batch_size, champion.properties))
    console.print("[bold]5/7[/] quantise to INT8, and gate")
    quantising = Quantising(
        folder / "fp32", source.train, source.val, test, source.seed, options, scored, champion, served.properties
    )
    tries, decision = quantising.run(lambda line: console.print(f"  {line}", markup=False, soft_wrap=True))
    scored, graph = tries.best.judged.scored, tries.best.made.graph
    # Quantising changes the distances.
    answering = {name: variants[name] for name in ("torch", *TOLERANCES)} if options.error_rate else {}
    answering["int8"] = compile_graph(graph)
    known = score_split(answering, source.val, options.batch_size, served.properties)
    save_graph(with_distance_threshold(graph, distance_threshold(known.distances["int8"])), folder / "int8")
    if options.error_rate:
        add_bounds(folder, known, options.error_rate)
    variants["int8"] = compile_graph(open_graph(folder / "int8"))
    console.print("[bold]6/7[/] latency, throughput, memory")
    speeds = {
        name: asdict(measure_speed(variants[name], served.properties, options.batch_size))
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
        "input": served.properties.input,
        "attributes": served.properties.attributes,
        "attempts": [_describe(one, len(quantising.inputs[0])) for one in tries.all],
        "attempts_ended": tries.ended,
        "export_difference": differences,
        "familiarity": _familiarity(scored, folder),
        "exact_maps": served.properties.exact_maps,
    }
    if options.error_rate:
        report["unsure"] = {
            name: describe_answers(open_variant(name, folder / name)[1], scored, name, source.seed) for name in speeds
        }
    write_json(folder / "report.json", report)
    write_json(folder / BOXES, known_boxes(test))
    modes = {name: predict for name, predict in variants.items() if name in MODES}
    draw_reference(modes, served.properties.at(folder)).save(folder)
    write_own_test(folder, scored.labels, scored.probabilities["int8"], scored.patients)
    properties, study = properties_of(open_graph(folder / "int8")), _study(source, report)
    write_model_card(describe_model(properties, source.card, scored, report, source.seed, study), folder)
    return report, decision


def _study(source: CandidateSource, report: dict) -> dict:
    return {
        "table": source.about_table,
        "training": describe_training(source.checkpoint, source.card),
        "registration": describe_registration(report),
    }


def _describe(one: Try, num_images: int) -> dict:
    return {
        "name": one.way.name,
        "calibration_images": num_images,
        "seconds": one.seconds,
        "kept_in_fp32": layers_in_fp32(one.made.graph),
        "reasons": one.judged.decision.reasons,
    }


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
