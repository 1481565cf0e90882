"""Answers the image files of one command line: opens the champion, reads the files side by side, prints the answers."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import jsonargparse
from rich.console import Console

from conf.errors import InputError
from conf.progress import Progress, say
from conf.settings import Settings
from conf.startup import quick_imports
from conf.words import RESEARCH_USE, counted
from conf.workspace import Workspace
from inference.files.answer_formats import (
    ANSWER_COLUMNS,
    CSV_COLUMNS,
    Answered,
    as_csv,
    as_json,
    as_line,
    as_table,
    printable,
)
from inference.files.answering import FileAnswerer, answer_all
from inference.files.decoders import FileDecoders
from inference.files.image_files import ImageFile, find_images, local_path
from inference.files.overlays import SHOWN_PX
from inference.film.known_boxes import load_boxes
from inference.film.stated import count_stated, describe_given, lines_of, read_given, refuse_given
from inference.model.reference import difference_here
from inference.model.ten_crop import with_ten_crops


def run(settings: Settings, workspace: Workspace, options: jsonargparse.Namespace) -> int:
    """Prints the answers and paints the heat maps; returns the number of files without an answer.

    options: the arguments of inference/infer.py. Raises InputError if a file, a folder or the model is not there.
    """
    started = time.perf_counter()
    paths, given = [local_path(path) for path in options.files], read_given(options.age, options.sex, options.view)
    heatmaps = made_folder(os.path.expanduser(options.heatmaps)) if options.heatmaps else None
    files, others = find_images(paths, options.heatmaps and str(heatmaps))
    with FileDecoders(min(len(os.sched_getaffinity(0)), len(files))) as decoders:
        # Imported here, because MLflow takes seconds, in which the decoders start.
        with quick_imports():
            from inference.model.model_files import find_model
            from inference.model.served_model import open_served

        found = find_model(workspace, settings.inference.registered_model, options.version, options.model)
        served = open_served(found, options.mode)
        refuse_given(served.properties, given)
        points = served.properties.thresholds
        if options.threshold not in points:
            raise InputError(f"--threshold is {options.threshold!r}, expected one of {', '.join(points)}")
        crops = ", ten crops" if options.ten_crop else ""
        properties, unsure = served.properties, served.properties.unsure
        model = f"{found.title}, {served.mode.upper()}{crops}, thresholds {options.threshold}"
        if unsure and options.ten_crop:
            # Averages of crops are other probabilities than those that its bounds were chosen with.
            say("With --ten_crop the model does not answer unsure: its error rate holds for whole images alone")
            properties = replace(properties, unsure={})
        elif unsure:
            model += f", error rate {unsure['error_rate']:g}"
        say(f"{model}. {RESEARCH_USE}")
        if differs := difference_here(served.folder, served.mode, served.predict, served.properties.findings, "--mode"):
            say(f"Attention: {differs}")
        if given:
            say(f"Given for all files, whatever their tags say: {describe_given(given)}")
        boxes = load_boxes(served.folder) if heatmaps else {}
        answerer = FileAnswerer(properties, options.threshold, heatmaps, boxes, model, given)
        predict = with_ten_crops(served.predict) if options.ten_crop else served.predict
        decoded = decoders.decode(files, served.properties, SHOWN_PX if heatmaps else 0)
        about = {"model": served.name, "version": served.version, "mode": served.mode}
        about |= {"ten_crop": options.ten_crop, "operating_point": options.threshold}
        # Closed at once on an interruption, so that no further picture is painted.
        with closing(answer_all(decoded, predict, answerer, settings.inference.batch_size)) as answers:
            num_failed = write_answers(answers, files, options.format, about, bool(properties.unsure))
        if served.properties.attributes:
            for line in lines_of(count_stated(answerer.answered, served.properties)):
                say(line)
    seconds = time.perf_counter() - started
    print_outcome(len(files), num_failed, others, seconds, heatmaps)
    return num_failed


def made_folder(path: str) -> Path:
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--heatmaps {path} cannot be made ({error.strerror}): choose another folder") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"--heatmaps {path} cannot be written to: choose another folder")
    return folder


def write_answers(answers: Iterator[Answered], files: list[ImageFile], form: str, about: dict, unsure: bool) -> int:
    """Prints the answers as they come; returns the number of files without one. unsure: see as_csv."""
    console = Console(highlight=False)
    width = max(len(printable(file.path)) for file in files)
    # On a terminal, the answers in between would break the bar.
    bar = Progress("files", len(files), "file", shown=not sys.stdout.isatty(), end=False)
    num_failed = 0
    if form == "csv":
        sys.stdout.write(",".join([*CSV_COLUMNS, *(ANSWER_COLUMNS if unsure else ())]) + "\n")
    with bar:
        for answered in answers:
            if answered.findings is None:
                num_failed += 1
                say(f"{printable(answered.path)}: {answered.fault}")
            if form == "json":
                sys.stdout.write(as_json(answered, about) + "\n")
            elif form == "csv":
                sys.stdout.write(as_csv(answered, about["operating_point"], unsure))
            elif answered.findings:
                one = len(files) == 1
                sys.stdout.write(as_table(answered, console) if one else as_line(answered, width, console))
            sys.stdout.flush()
            bar.update()
    return num_failed


def print_outcome(num_files: int, num_failed: int, others: int, seconds: float, heatmaps: Path | None) -> None:
    failed = f", {num_failed} failed (reasons above)" if num_failed else ""
    skipped = f", {counted(others, 'other file')} in the folders left out" if others else ""
    say(f"{num_files - num_failed} of {counted(num_files, 'file')} answered in {seconds:.1f} s{failed}{skipped}")
    if heatmaps:
        say(f"Next: open the pictures in {heatmaps}")
    else:
        say("Next: --heatmaps FOLDER paints the evidence for each finding, --format json or csv gives all numbers")
