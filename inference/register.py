"""Exports the best checkpoint, quantises it, measures both on the test split, and registers the INT8 model.

    python inference/register.py                                      the workspace of conf/demo.yaml
    python inference/register.py --config conf/nih.yaml               the workspace of another scenario
    python inference/register.py --inference.max_mean_drop 0.002      a stricter gate

Reads checkpoints/best.pt and the version of the table that it was trained on; writes model/ (fp32, int8, report.json),
figures/test_auroc.png and a version of the registered model in mlflow.db. A model that the gate refuses is registered
as well, as `challenger`; `champion` stays where it was.
"""

import resource
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from conf.errors import InputError, run_command
from conf.settings import Settings, load_settings
from conf.workspace import Workspace, atomic_folder, update_summary, write_json
from etl.schema import Card
from inference.baseline import ThumbnailBaseline
from inference.evaluate import (
    aurocs_of_finite,
    describe_machine,
    graph_scores,
    measure_speed,
    score_split,
    torch_scores,
)
from inference.export import export_graph, lineage
from inference.gate import Decision, decide
from inference.graphs import num_int8_layers, open_graph
from inference.quantize import calibration_images, quantize_folder
from inference.registry import CHAMPION, Registered, champion_version, check_run, register
from inference.report import auroc_table, describe, draw_report, speed_lines
from training.checkpoint import BEST, Checkpoint
from training.plan import Split
from training.readers import open_split

console = Console(highlight=False)


def main() -> None:
    settings = load_settings("Exports the best checkpoint, quantises, measures, gates and registers it.")
    workspace = Workspace.at(settings.workspace, settings.tracking_server)
    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    card = card_of(checkpoint, workspace)
    status = check_run(workspace, checkpoint.run_id)
    if status != "FINISHED":
        console.print(f"Training run {checkpoint.run_id} is {status}: this registers its best epoch up to then")
    train, test = (
        open_split(workspace.tables(card.table)[0], card, name, checkpoint.size_px) for name in ("train", "test")
    )
    with workspace.exclusive():
        with atomic_folder(workspace.model) as folder:
            report, decision = build(settings, checkpoint, train, test, folder)
        draw_report(report, workspace.figures / "test_auroc.png")
        console.print("[bold]6/6[/] register")
        registered = register(
            workspace, settings.inference.registered_model, checkpoint, workspace.model / "int8", report, decision
        )
        add_to_summary(workspace, report, registered)
    print_outcome(settings, workspace, report, decision, registered)


def card_of(checkpoint: Checkpoint, workspace: Workspace) -> Card:
    """The card, pointed at the version of the table that the checkpoint was trained on.

    The ETL may have run again since: in a newer version, today's test images may have been trained on.
    """
    card = Card.read(workspace.card)
    if card.findings != checkpoint.findings:
        raise InputError(
            f"the checkpoint knows the findings {checkpoint.findings}, the card at {workspace.card} {card.findings}: "
            "run `python training/train.py` on this table first"
        )
    if card.delta_table_id != checkpoint.delta_table_id:
        raise InputError(
            f"{workspace.shards} was made anew since this checkpoint was trained, and what it was trained on is gone: "
            "run `python training/train.py` on the new table"
        )
    return replace(card, delta_version=checkpoint.delta_version, sizes_px=[checkpoint.size_px])


def build(settings: Settings, checkpoint: Checkpoint, train: Split, test: Split, folder: Path) -> tuple[dict, Decision]:
    """Fills `folder` with fp32/, int8/ and report.json; returns the report and the gate's decision."""
    options, seed = settings.inference, settings.training.seed
    console.print(f"[bold]1/6[/] export {checkpoint.model} of epoch {checkpoint.epoch}")
    difference = export_graph(checkpoint, folder / "fp32")
    images = calibration_images(train, options.num_calibration_images, seed)
    console.print(f"[bold]2/6[/] quantise, calibrated on {len(images)} images of the train split")
    quantize_folder(folder / "fp32", folder / "int8", images)

    console.print("[bold]3/6[/] fit the baseline: logistic regression on thumbnails of the train split")
    baseline = ThumbnailBaseline(train, seed)
    variants = {
        "torch": torch_scores(checkpoint.build()),
        "fp32": graph_scores(folder / "fp32"),
        "int8": graph_scores(folder / "int8"),
    }
    console.print(f"[bold]4/6[/] AUROC on the test split, {test.rows} images")
    labels, scores = score_split({"baseline": baseline.predict, **variants}, test, options.batch_size)
    aurocs = {name: aurocs_of_finite(labels, values) for name, values in scores.items()}
    console.print("[bold]5/6[/] latency and throughput")
    speeds = {name: measure_speed(variant, test.size_px, options.batch_size) for name, variant in variants.items()}

    decision = decide(
        aurocs["fp32"], aurocs["int8"], checkpoint.findings, options.max_mean_drop, options.max_finding_drop
    )
    data = {
        "split": test.name,
        "delta_version": checkpoint.delta_version,
        "images": test.rows,
        "positives": dict(zip(checkpoint.findings, np.nansum(labels, axis=0).astype(int).tolist(), strict=True)),
    }
    report = describe(checkpoint.findings, data, aurocs, speeds, decision)
    report |= {
        "lineage": lineage(checkpoint),
        "machine": describe_machine(),
        "batch_size": options.batch_size,
        "calibration_images": len(images),
        "int8_convolutions": num_int8_layers(open_graph(folder / "int8")),
        "export_difference": difference,
    }
    write_json(folder / "report.json", report)
    return report, decision


def add_to_summary(workspace: Workspace, report: dict, registered: Registered) -> None:
    """Adds this stage's numbers to summary.json."""
    aurocs, speeds = report["test_auroc"], report["speed"]
    update_summary(
        workspace,
        test_auroc={name: variant["mean"] for name, variant in aurocs.items()}
        | {"per_finding": {name: variant["per_finding"] for name, variant in aurocs.items()}},
        registry=asdict(registered)
        | {"gate_passed": report["gate"]["passed"], "gate_reasons": report["gate"]["reasons"]},
        latency_ms={name: speed["latency_ms"] for name, speed in speeds.items()},
        throughput={name: speed["images_per_s"] for name, speed in speeds.items()},
        peak_memory_mb={"register": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)},
    )


def print_outcome(
    settings: Settings, workspace: Workspace, report: dict, decision: Decision, registered: Registered
) -> None:
    console.print(auroc_table(report))
    machine = report["machine"]
    console.print(f"Speed, {machine['cpu']}, {machine['cores']} cores, batches of {report['batch_size']}:")
    for line in speed_lines(report):
        console.print(line)
    if decision.undefined:
        console.print(f"Undefined in the test split, not compared: {', '.join(decision.undefined)}")
    console.print("[bold green]Gate passed[/]:" if decision.passed else "[bold red]Gate failed[/]:")
    for reason in decision.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    aliases = ", ".join(f"@{alias}" for alias in registered.aliases)
    console.print(f"Registered [bold]{registered.model}[/] version {registered.version} as {aliases}")
    console.print(
        f"Report {workspace.model / 'report.json'}, figure {workspace.figures / 'test_auroc.png'}", soft_wrap=True
    )
    print_next_step(settings, workspace, decision, registered)


def print_next_step(settings: Settings, workspace: Workspace, decision: Decision, registered: Registered) -> None:
    look = workspace.tracking_server or f"`mlflow ui --backend-store-uri sqlite:///{workspace.tracking_db}`"
    if decision.passed:
        console.print(
            f"Next: {look}, or load models:/{registered.model}@{CHAMPION}",
            soft_wrap=True,
        )
        return
    champion = champion_version(workspace, settings.inference.registered_model)
    stays = f"stays version {champion}" if champion else "does not exist yet"
    console.print(
        f"Next: @{CHAMPION} {stays}; raise inference.num_calibration_images "
        f"({settings.inference.num_calibration_images}), or accept a larger drop, and run this again",
        soft_wrap=True,
    )


if __name__ == "__main__":
    run_command(main)
