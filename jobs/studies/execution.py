"""Runs the trainings of a study: starts what is missing, and compares what has finished."""

import argparse
import json
import shutil
import sys
from collections.abc import Collection, Iterable
from dataclasses import asdict, replace

import torch
from rich.console import Console

from conf.errors import InputError
from conf.progress import duration, say
from conf.settings import Settings
from conf.words import counted
from conf.workspace import Workspace
from conf.writing import write_json
from jobs.studies.comparison import compare
from jobs.studies.parent import StudyRun
from jobs.studies.results import PAGE, screen_table, title_of, write_results
from jobs.studies.runs import read_runs
from jobs.studies.side_by_side import Job, Queue, last_words, places
from jobs.studies.state import PROJECT, SCENARIO, find_table, finished_run, is_registered, prepare, scenario_of
from jobs.studies.study import Study, effective
from training.network.build import build_for
from training.ranks.interruption import EXIT_SIGTERM

COMPARED, COMPARED_WHAT = "compared", "compared.json"
"""folder of the comparison, and a file in it that says what was compared"""
STOPPED = 128
"""plus the signal: exit code of a command that a signal ended"""


def show_runs(study: Study) -> None:
    """Prints what the study would train. Raises InputError for a network that does not exist or fit its images."""
    check_networks(study)
    print(f"{study.name}: {counted(len(study.runs), 'run')} of {study.base}, images of {study.sizes_px} px")
    for name, run in study.runs.items():
        training = asdict(effective(run.training))
        print(f"{name}: {', '.join(f'{key} {training[key]!r}' for key in study.varied)}")


def check_networks(study: Study) -> None:
    """Raises InputError, which names the run, for a network that does not exist or does not take its images."""
    for name, run in study.runs.items():
        try:
            # Without weights, which would take time and memory.
            with torch.device("meta"):
                build_for(run.training, num_findings=1, pixel_mean=0.0, pixel_std=1.0)
        except InputError as error:
            raise InputError(f"run {name}: {error}") from error


def run_study(study: Study, workspace: Workspace, options: argparse.Namespace) -> None:
    """Runs a study in a workspace. options: those of jobs/sweep.py.

    Ends the process with the ETL's exit code if that fails, and with 128 plus the signal if one stops the study. Raises
    InputError if a run fails, or if the study is at work already.
    """
    check_networks(study)
    base = next(iter(study.runs.values()))
    num_gpus = 0 if base.training.device == "cpu" else torch.cuda.device_count()
    devices = places(max(1, base.jobs.num_ranks), options.at_once, num_gpus)
    folder = Workspace.at(str(workspace.root / "runs"))
    with folder.exclusive():
        table = find_table(study, workspace)
        runs = {name: replace(run, workspace=str(folder.root / name)) for name, run in study.runs.items()}
        here = {name: Workspace.of(run) for name, run in runs.items()}
        for name, run in runs.items():
            prepare(run, here[name], table)
        if options.prepare:
            print(f"Next: train each `--config {folder.root / '*' / SCENARIO}`, then this command without --prepare")
            return
        parent = StudyRun(workspace, base.training.experiment, study.name)
        done = _finished(here, runs)
        jobs = _missing(runs, here, done, options.register)
        print(f"{study.name}: {counted(len(runs), 'run')}, {len(runs) - len(jobs)} finished before", flush=True)
        stopped = Queue(jobs, devices, _say_began, _say_ended).run()
        done |= _finished(here, [job.name for job in jobs])
        done = {name: done[name] for name in runs if name in done}
        for name, run_id in done.items():
            parent.add(name, here[name], run_id)
        failed = [job for job in jobs if job.code and not stopped]
        status = "KILLED" if stopped else "FAILED" if failed else "FINISHED"
        _conclude(parent, status, done, workspace, options)
    if stopped:
        print(f"Stopped: {len(done)} of {counted(len(runs), 'run')} are finished")
        print("Next: the same command, which resumes what was stopped")
        sys.exit(STOPPED + stopped)
    if failed:
        names = ", ".join(f"{job.name} (exit code {job.code}, {job.log})" for job in failed)
        raise InputError(
            f"{len(failed)} of {counted(len(runs), 'run')} failed: {names}. The reasons are above and in the logs. The "
            "same command trains only what is missing"
        )


def _finished(here: dict[str, Workspace], names: Iterable[str]) -> dict[str, str]:
    """The runs among `names` whose training has finished, with the id of its MLflow run."""
    return {name: run_id for name in names if (run_id := finished_run(here[name]))}


def _missing(
    runs: dict[str, Settings], here: dict[str, Workspace], trained: Collection[str], register: bool
) -> list[Job]:
    """What is still to do. trained: runs that have finished. register: whether to register each trained model too."""
    jobs = []
    for name, run in runs.items():
        given = ["--config", str(scenario_of(here[name]))]
        ranks = run.jobs.num_ranks
        launcher = ["torchrun", "--standalone", "--nproc_per_node", str(ranks)] if ranks > 1 else ["python"]
        commands = []
        if name not in trained:
            commands.append([*launcher, str(PROJECT / "training/train.py"), *given, "--resume", "auto"])
        if register and not (name in trained and is_registered(here[name])):
            commands.append(["python", str(PROJECT / "inference/register.py"), *given])
        if commands:
            jobs.append(Job(name, commands, here[name].root / "log.txt"))
    return jobs


def _say_began(job: Job) -> None:
    say(f"{job.name}: started, log {job.log}", sys.stdout)


def _say_ended(job: Job) -> None:
    how = {0: "finished", EXIT_SIGTERM: "stopped"}.get(job.code, f"failed with exit code {job.code}")
    said = "" if how == "finished" else f": {last_words(job)}"
    say(f"{job.name}: {how} after {duration(job.seconds)}{said}", sys.stdout)


def _conclude(
    parent: StudyRun, status: str, done: dict[str, str], workspace: Workspace, options: argparse.Namespace
) -> None:
    """Compares the finished runs, if there are two or more; writes and logs the result unless it is there already.

    status: the end of the study's MLflow run, such as FINISHED. done: the finished runs, with the ids of their MLflow
    runs.
    """
    folder = workspace.root / COMPARED
    if len(done) < 2:
        shutil.rmtree(folder, ignore_errors=True)
        parent.end(status)
        print(f"{counted(len(done), 'run is', 'runs are')} finished, so there is nothing to compare")
        return
    first = next(iter(done))
    reference = options.reference or first
    if reference not in done:
        print(f"{reference} is not finished: the others are compared with {first}")
        reference = first
    runs = read_runs([str(workspace.root / "runs" / name) for name in done], workspace.tracking_server)
    comparison = compare(runs, reference, options.target)
    what = {"runs": done, "reference": reference, "target": options.target}
    written = folder / COMPARED_WHAT
    if written.exists() and json.loads(written.read_text(encoding="utf-8")) == what:
        parent.end(status)
    else:
        parent.end(status, comparison, write_results(comparison, folder))
        write_json(written, what)
    print(title_of(comparison))
    Console(highlight=False).print(screen_table(comparison))
    print(f"Next: open {folder / PAGE}, or look at the runs in MLflow: make ui WORKSPACE={workspace.root}")
