"""Runs the trainings of a study: starts what is missing, and compares what has finished."""

import argparse
import sys
from dataclasses import asdict, replace

import torch
from rich.console import Console

from conf.errors import InputError
from conf.progress import duration, say
from conf.settings import Settings
from conf.words import counted
from conf.workspace import Workspace
from jobs.studies.comparison import compare
from jobs.studies.parent import StudyRun
from jobs.studies.results import PAGE, screen_table, title_of, write_results
from jobs.studies.runs import read_runs
from jobs.studies.side_by_side import Job, Queue, last_words, places
from jobs.studies.state import PROJECT, find_table, finished_run, is_registered, prepare, scenario_of
from jobs.studies.study import Study
from training.ranks.interruption import EXIT_SIGTERM

COMPARED = "compared"
STOPPED = 128
"""plus the signal: exit code of a command that a signal ended"""


def show_runs(study: Study) -> None:
    """Prints what the study would train."""
    first, *others = (asdict(run.training) for run in study.runs.values())
    varied = [key for key in first if any(other[key] != first[key] for other in others)]
    print(f"{study.name}: {counted(len(study.runs), 'run')} of {study.base}, images of {study.sizes_px} px")
    for name, run in study.runs.items():
        print(f"{name}: {', '.join(f'{key} {getattr(run.training, key)!r}' for key in varied)}")


def run_study(study: Study, workspace: Workspace, options: argparse.Namespace) -> None:
    """Runs a study in a workspace. options: those of jobs/sweep.py.

    Ends the process with the ETL's exit code if that fails, and with 128 plus the signal if one stops the study. Raises
    InputError if a run fails, or if the study is at work already.
    """
    folder = Workspace.at(str(workspace.root / "runs"))
    with folder.exclusive():
        table = find_table(study, workspace)
        runs = {name: replace(run, workspace=str(folder.root / name)) for name, run in study.runs.items()}
        here = {name: Workspace.of(run) for name, run in runs.items()}
        for name, run in runs.items():
            prepare(run, here[name], table)
        base = next(iter(runs.values()))
        parent = StudyRun(workspace, base.training.experiment, study.name)
        trained = {name for name in runs if finished_run(runs[name], here[name], table)}
        jobs = _missing(runs, here, trained, options.register)
        print(f"{study.name}: {counted(len(runs), 'run')}, {len(runs) - len(jobs)} finished before", flush=True)
        num_gpus = 0 if base.training.device == "cpu" else torch.cuda.device_count()
        queue = Queue(jobs, places(max(1, base.jobs.num_ranks), options.at_once, num_gpus), _say_began, _say_ended)
        stopped = queue.run()
        done = []
        for name, run in runs.items():
            if run_id := finished_run(run, here[name], table):
                parent.add(name, here[name], run_id)
                done.append(name)
        failed = [job for job in jobs if job.code and not stopped]
        _conclude(parent, [str(here[name].root) for name in done], workspace, options, is_new=bool(jobs))
    if stopped:
        print(f"Stopped: {len(done)} of {counted(len(runs), 'run')} are finished")
        print("Next: the same command, which resumes what was stopped")
        sys.exit(STOPPED + stopped)
    if failed:
        reasons = "; ".join(f"{job.name} (exit code {job.code}, {job.log}): {last_words(job.log)}" for job in failed)
        raise InputError(
            f"{len(failed)} of {counted(len(runs), 'run')} failed: {reasons}. The same command trains only what is "
            "missing"
        )


def _missing(runs: dict[str, Settings], here: dict[str, Workspace], trained: set[str], register: bool) -> list[Job]:
    """What is still to do. register: whether each trained model is to be registered too."""
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
    said = "" if how == "finished" else f": {last_words(job.log)}"
    say(f"{job.name}: {how} after {duration(job.seconds)}{said}", sys.stdout)


def _conclude(
    parent: StudyRun, done: list[str], workspace: Workspace, options: argparse.Namespace, is_new: bool
) -> None:
    """Compares the finished runs, if there are two or more; writes and logs the result if it is new."""
    folder = workspace.root / COMPARED
    if len(done) < 2:
        parent.end(None, [])
        return
    runs = read_runs(done, workspace.tracking_server)
    names = [run.name for run in runs]
    reference = options.reference if options.reference in names else names[0]
    comparison = compare(runs, reference, options.target)
    if is_new or not (folder / PAGE).exists():
        parent.end(comparison, write_results(comparison, folder))
    print(title_of(comparison))
    Console(highlight=False).print(screen_table(comparison))
    print(f"Next: open {folder / PAGE}, or look at the runs in MLflow: make ui WORKSPACE={workspace.root}")
