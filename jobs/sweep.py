"""Runs a study: trainings on one table that differ in some settings, side by side, and compares them.

    python jobs/sweep.py conf/studies/three_networks.yaml --etl.source DIR
    python jobs/sweep.py STUDY --workspace runs/study --training.epochs 3       the command line wins in all runs
    python jobs/sweep.py STUDY --config conf/demo.yaml --quick                  quick, on phantoms
    python jobs/sweep.py STUDY --check                                          only lists the runs

STUDY is a YAML file with a scenario and what changes (docs/evidence.md); its workspace is runs/studies/NAME unless
given. The ETL makes the table once. Then as many trainings run at a time as the machine has GPUs, each in
<workspace>/runs/NAME, with its scenario. A training that fails does not stop the others. The same command again trains
only what is missing, and resumes what was interrupted. Research use only, not for clinical use.
"""

import os
import sys

from conf.arguments import ArgumentParser, add_switch, load_arguments, pairs_in, settings_in
from conf.errors import InputError, run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("phantoms", "etl", "training", "jobs.num_ranks", "tracking_server")


def main() -> None:
    description = "Runs a study: trainings that differ in some settings, side by side, and compares them."
    argv = sys.argv[1:]
    given = pairs_in(settings_in(argv))
    if argv and not argv[0].startswith("-") and "--config" not in dict(given):
        from jobs.studies.study import base_of

        # First, so that the words win; they are checked with the settings of the study's scenario.
        argv = ["--config", base_of(argv[0]), *argv]
    settings, options = load_arguments(description, "STUDY", add_own, argv, READS)
    with quick_imports():
        from jobs.studies.execution import run_study, show_runs
        from jobs.studies.study import read_study
    words = [f"{name}={value}" for name, value in given if name != "--config"]
    study = read_study(options.study, words, dict(given).get("--config", ""), options.quick)
    if options.reference and options.reference not in study.runs:
        raise InputError(f"--reference is {options.reference}, expected one of {', '.join(study.runs)}")
    if options.check:
        show_runs(study)
        return
    # A quick try must not meet the real study.
    usual = os.path.join("runs", "studies", study.name + "-quick" * options.quick)
    folder = settings.workspace if "--workspace" in dict(given) else usual
    run_study(study, Workspace.at(folder, next(iter(study.runs.values())).tracking_server), options)


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument("study", help="YAML file that describes the study")
    add_switch(parser, "--check", "only check the study and list its runs")
    add_switch(parser, "--prepare", "only make the table and the runs' scenarios, for trainings by a scheduler")
    add_switch(parser, "--quick", "a quick try: images of a quarter of the size, one epoch per stage")
    add_switch(parser, "--register", "also quantise and register each trained model, in its own workspace")
    parser.add_argument(
        "--at_once",
        type=int,
        default=0,
        metavar="N",
        help="most trainings at a time; 0: as many as the GPUs allow, one without GPUs",
    )
    parser.add_argument(
        "--reference", default="", metavar="NAME", help="run to compare with; if omitted, the first one"
    )
    parser.add_argument("--target", type=float, default=0.8, help="mean validation AUROC to which seconds are counted")


if __name__ == "__main__":
    run_command(main)
