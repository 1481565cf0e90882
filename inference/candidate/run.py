"""Makes a candidate of a workspace's best checkpoint, registers it, and prints what was measured and decided."""

import resource
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from conf.arguments import with_same_settings
from conf.disks import named_if_full
from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace, update_summary
from conf.writing import atomic_folder
from etl.contract.schema import SPLITS
from etl.contract.version import TableVersion
from etl.contract.vocabulary import check_vocabulary
from inference.candidate.build import CandidateSource, build_candidate
from inference.candidate.gate import FEW_PATIENTS, Decision, next_step
from inference.candidate.incumbent import open_incumbent
from inference.candidate.making.unsure import check_error_rate
from inference.candidate.registration import check_run, register
from inference.candidate.report import answer_table, auroc_table, draw_report, quality_table, speed_table
from inference.candidate.study import describe_table
from inference.model.graphs import open_graph, properties_of
from inference.model.networks.fitted import CPU
from inference.model.registry import CHAMPION, Registered, champion_version
from training.network.checkpoint import BEST, Checkpoint
from training.ranks.topology import Topology
from training.reading.readers import open_split

if TYPE_CHECKING:
    import torch

console = Console(highlight=False)


def run(settings: Settings, workspace: Workspace) -> None:
    """Fills the workspace's model/, draws its figure and registers a version.

    Raises InputError if there is no checkpoint, or if its table, its run or a champion cannot be read.
    """
    checkpoint = Checkpoint.load(workspace.checkpoints / BEST)
    if not checkpoint.size_px:
        raise InputError(
            f"{checkpoint.model} answers without looking at the film, so it is not served alone: name its workspace "
            "among the ensemble.members of `python training/ensemble.py`, and register the ensemble"
        )
    # An older release may have trained it.
    check_vocabulary(checkpoint.findings, "run the ETL again, and train on its table")
    table = table_of(checkpoint, workspace, settings.etl.table)
    name = settings.inference.registered_model
    status = check_run(workspace, checkpoint.run_id)
    if status != "FINISHED":
        console.print(f"Training run {checkpoint.run_id} is {status}: registering its best epoch so far")
    device = device_for(settings.training.device)
    splits = {name: open_split(table, name, checkpoint.size_px, checkpoint.tabular) for name in SPLITS}
    if rate := settings.inference.error_rate:
        for line in check_error_rate(checkpoint.findings, splits["val"], rate):
            console.print(line, markup=False, soft_wrap=True)
    about_table, seed = describe_table(table, workspace), settings.training.seed
    source = CandidateSource(checkpoint, table.card, about_table, **splits, seed=seed)
    with workspace.exclusive():
        champion = open_incumbent(workspace, name, table)
        with atomic_folder(workspace.model) as folder:
            report, decision = build_candidate(source, champion, settings.inference, device, folder, console)
        draw_report(report, workspace.figures / "test_auroc.png")
        console.print("[bold]7/7[/] register")
        properties = properties_of(open_graph(workspace.model / "int8"))
        compared = champion.version if champion else 0
        with named_if_full(workspace.store):
            registered = register(workspace, name, properties, workspace.model, report, decision, compared)
        add_to_summary(workspace, report, registered, checkpoint.run_id)
    print_outcome(settings, workspace, report, decision, registered)


def device_for(wanted: str) -> "torch.device":
    """Where torch computes the answers on the test split: a GPU by the rule of training.device, otherwise the CPU.

    Raises InputError if the wanted device is not there.
    """
    # This is one process, even where a launcher's variables are set.
    topology = Topology.detect(wanted, environ={})
    return topology.torch_device if topology.device == "cuda" else CPU


def table_of(checkpoint: Checkpoint, workspace: Workspace, elsewhere: str) -> TableVersion:
    """The version of the table that the checkpoint was trained on. elsewhere: see TableVersion.of.

    The ETL may have run since: the test split of a newer version may hold images that the checkpoint was trained on.
    """
    newest = TableVersion.of(workspace, elsewhere=elsewhere)
    if newest.card.findings != checkpoint.findings:
        raise InputError(
            f"the checkpoint knows the findings {checkpoint.findings}, the table at {newest.shards} has "
            f"{newest.card.findings}: run `python training/train.py` on this table first"
        )
    return newest.trained_on(checkpoint.delta_table_id, checkpoint.delta_version, "this checkpoint")


def add_to_summary(workspace: Workspace, report: dict, registered: Registered, run_id: str) -> None:
    """Adds this stage's numbers to summary.json."""
    aurocs, speeds = report["test_auroc"], report["speed"]
    update_summary(
        workspace,
        test_auroc={name: variant["mean"]["value"] for name, variant in aurocs.items()}
        | {"per_finding": {name: _values(variant) for name, variant in aurocs.items()}},
        registry=asdict(registered)
        | {"run_id": run_id}
        | {"gate_passed": report["gate"]["passed"], "gate_reasons": report["gate"]["reasons"]},
        latency_ms={name: speed["latency_ms"] for name, speed in speeds.items()},
        throughput={name: speed["images_per_s"] for name, speed in speeds.items()},
        peak_memory_mb={"register": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)},
    )


def _values(aurocs: dict[str, dict]) -> dict[str, float | None]:
    return {finding: ends["value"] for finding, ends in aurocs.items() if finding != "mean"}


def print_outcome(
    settings: Settings, workspace: Workspace, report: dict, decision: Decision, registered: Registered
) -> None:
    console.print(auroc_table(report))
    console.print(quality_table(report))
    if "unsure" in report:
        console.print(answer_table(report))
    console.print(speed_table(report))
    if decision.undefined:
        console.print(f"Undefined in the test split, not compared: {', '.join(decision.undefined)}", markup=False)
    if decision.few_patients:
        few = ", ".join(decision.few_patients)
        console.print(f"Fewer than {FEW_PATIENTS} patients, too few to show much: {few}", markup=False)
    console.print("[bold green]Gate passed[/]:" if decision.passed else "[bold red]Gate failed[/]:")
    for reason in decision.reasons:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
    aliases = ", ".join(f"@{alias}" for alias in registered.aliases)
    console.print(f"Registered [bold]{escape(registered.model)}[/] version {registered.version} as {aliases}")
    places = f"Report {workspace.model / 'report.json'}, figure {workspace.figures / 'test_auroc.png'}"
    console.print(places, markup=False, soft_wrap=True)
    print_next_step(settings, workspace, decision, registered)


def print_next_step(settings: Settings, workspace: Workspace, decision: Decision, registered: Registered) -> None:
    look = workspace.tracking_server or f"`mlflow ui --backend-store-uri sqlite:///{workspace.tracking_db}`"
    if decision.passed:
        console.print(
            f"Next: {look}, or load models:/{registered.model}@{CHAMPION}",
            markup=False,
            soft_wrap=True,
        )
        return
    champion = champion_version(workspace, settings.inference.registered_model)
    stays = f"stays version {champion}" if champion else "does not exist yet"
    console.print(
        f"Next: @{CHAMPION} {stays}; {next_step(decision)}, or promote it anyway: "
        f"`{with_same_settings(f'python inference/promote.py {registered.version}')}`",
        markup=False,
        soft_wrap=True,
    )
