"""Compares finished trainings on the same test films, in one table.

    python jobs/compare.py runs/a runs/b runs/c                       beside the first one
    python jobs/compare.py --reference b --output runs/compared runs/a runs/b
    python jobs/compare.py runs/studies/NAME/runs/*                   the runs of a study
    python jobs/compare.py runs/nih theirs.csv                        beside predictions of others, on the same films
    python jobs/compare.py --literature runs/nih                      beside published AUROCs on ChestX-ray14, too

A row per run: network, parameters, size, weights, mean AUROC and every finding's with 95% intervals by patient, the
paired difference to the reference, calibration, seconds to train and to a target AUROC, images/s, INT8's speed and its
fall. It writes compare.csv, compare.md, compare.html and figures, and logs them to the reference's MLflow. It refuses
runs of other tables, versions, findings or test images. Research use only, not for clinical use.
"""

from pathlib import Path

from conf.arguments import ArgumentParser, add_switch, load_arguments
from conf.errors import InputError, run_command
from conf.startup import quick_imports

READS = ("tracking_server",)
LITERATURE = "literature.png"


def main() -> None:
    settings, options = load_arguments(
        "Compares finished trainings in one table.", "RUN [RUN ...]", add_own, reads=READS
    )
    with quick_imports():
        from rich.console import Console

        from jobs.studies.comparison import compare
        from jobs.studies.literature import draw_literature, read_published, split_of
        from jobs.studies.predictions_file import read_predictions
        from jobs.studies.record import record
        from jobs.studies.results import PAGE, screen_table, title_of, write_results
        from jobs.studies.runs import read_runs
    output = Path(options.output).expanduser()
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file, expected a folder: name another")
    files = [place for place in options.runs if is_predictions(Path(place))]
    trainings = [place for place in options.runs if place not in files]
    if files and not trainings:
        raise InputError(
            f"{', '.join(files)}: predictions are compared with those of a training, on its test films: give its "
            "workspace, too"
        )
    runs = read_runs(trainings, settings.tracking_server)
    names = [run.name for run in runs]
    reference = options.reference or names[0]
    if reference not in names:
        raise InputError(f"--reference is {reference}, expected one of the trainings {', '.join(names)}")
    runs += [read_predictions(Path(file), file, runs[0]) for file in dict.fromkeys(files)]
    if options.literature:
        # Not after the work.
        split_of(next(run for run in runs if run.name == reference))
    comparison = compare(runs, reference, options.target)
    written = write_results(comparison, output)
    if options.literature:
        draw_literature(output / LITERATURE, comparison.reference, read_published())
        written.append(output / LITERATURE)
    run_id = record(comparison, written)
    print(title_of(comparison))
    Console(highlight=False).print(screen_table(comparison))
    print(f"MLflow run {run_id} in {comparison.reference.member.workspace.store}")
    print(f"Next: open {output / PAGE}, which has the other columns and every finding")


def is_predictions(path: Path) -> bool:
    """Whether this is a file, or would be one if it existed."""
    return path.is_file() or (bool(path.suffix) and not path.is_dir())


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", help="workspaces of finished trainings, and CSV files with predictions")
    parser.add_argument(
        "--reference", default="", metavar="NAME", help="run to compare with; if omitted, the first one"
    )
    add_switch(parser, "--literature", "also draw the reference beside published AUROCs on NIH ChestX-ray14")
    parser.add_argument("--target", type=float, default=0.8, help="mean validation AUROC to which seconds are counted")
    parser.add_argument("--output", default="compared", metavar="DIR", help="folder for the table, page and figures")


if __name__ == "__main__":
    run_command(main)
