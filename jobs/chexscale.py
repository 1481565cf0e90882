"""Runs each command of CheXScale by one word, where pip has installed it. The files are the same as in a checkout.

    chexscale                                             lists the words
    chexscale etl --etl.source DIR                        spark-submit etl/preprocess.py --etl.source DIR
    chexscale train --help                                python training/train.py --help
    horovodrun -np 2 chexscale train                      horovodrun -np 2 python training/train.py
    torchrun --no-python --nproc_per_node 2 chexscale train
    spark-submit --master yarn "$(chexscale --file etl)"  options of a launcher stand before the installed file

What follows the word is passed to the file. The process becomes the command: signals reach it, and the exit code is its
own. Only a task of a Databricks job (`task`, the entry point of the same name) runs the command in its own process,
which has the cluster's Spark session.
"""

import ast
import importlib
import os
import shutil
import sys
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path

from conf.errors import EXIT_INPUT_ERROR, InputError, run_command
from conf.programs import own_environment

INSTALLED = Path(__file__).parents[1]
# Word -> file, in the order in which a newcomer needs them.
FILES = {
    "pipeline": "jobs/pipeline.py",
    "etl": "etl/preprocess.py",
    "train": "training/train.py",
    "boosting": "training/boosting.py",
    "ensemble": "training/ensemble.py",
    "label_quality": "training/label_quality.py",
    "lungs": "training/lungs.py",
    "register_lungs": "inference/lungs.py",
    "register": "inference/register.py",
    "package": "inference/package.py",
    "infer": "inference/infer.py",
    "validate": "inference/validate.py",
    "predict": "inference/predict.py",
    "serve": "inference/serve.py",
    "promote": "inference/promote.py",
    "rollback": "inference/rollback.py",
    "lineage": "inference/lineage.py",
    "reporting": "inference/reporting.py",
    "stats": "jobs/stats.py",
    "compare": "jobs/compare.py",
    "sweep": "jobs/sweep.py",
    "maintain": "jobs/maintain.py",
    "spark_train": "jobs/spark_train.py",
    "ui": "jobs/ui.py",
    "graph": "jobs/graph.py",
}
BY_SPARK = ("etl", "predict", "spark_train")
USAGE = "usage: chexscale WORD [ARGUMENT ...]"


class CommandFailed(Exception):
    """A command of a task has failed; the message is the command's own."""


def main() -> None:
    """The console command `chexscale`."""
    run_command(run)


def run() -> None:
    word, *arguments = sys.argv[1:] or ["--help"]
    if word in ("--help", "-h"):
        print(listing())
    elif word == "--version":
        print(f"chexscale {version('chexscale')} at {INSTALLED}, Python {sys.version.split()[0]}")
    elif word == "--file" and len(arguments) == 1 and arguments[0] in FILES:
        print(INSTALLED / FILES[arguments[0]])
    elif word in FILES:
        become(word, arguments)
    else:
        refuse(word, arguments)


def listing() -> str:
    """Returns one line for each word, with the first line of its file's docstring."""
    lines = [USAGE, "", "Runs a command of CheXScale. Research use only, not for clinical use.", ""]
    for word, file in FILES.items():
        text = ast.get_docstring(ast.parse((INSTALLED / file).read_text(encoding="utf-8")))
        lines.append(f"  {word:12} {text.splitlines()[0]}")
    lines += [
        "",
        "chexscale WORD --help    the arguments and settings of one command",
        "chexscale --file WORD    the file that a word runs, for spark-submit and other launchers",
        "chexscale --version      this version, its folder and its Python",
    ]
    return "\n".join(lines)


def become(word: str, arguments: list[str]) -> None:
    """Replaces this process by the command; does not return. Raises InputError if Spark is needed and missing."""
    program, environment = sys.executable, dict(os.environ)
    # --help needs no JVM, which takes seconds to start.
    if word in BY_SPARK and not {"--help", "-h"} & set(arguments):
        environment = own_environment()
        program = spark_submit(environment["PATH"])
    os.execve(program, [program, str(INSTALLED / FILES[word]), *arguments], environment)


def spark_submit(path: str) -> str:
    """Returns the environment's own spark-submit, which follows SPARK_HOME, or another one on this PATH."""
    found = shutil.which("spark-submit", path=path)
    if found is None:
        raise InputError(
            f"no spark-submit in {Path(sys.executable).parent} or on PATH: install the extra `etl` of chexscale "
            "(docs/environment.md), or put the Spark of your cluster on PATH"
        )
    return found


def task() -> None:
    """Runs a command in this process, as a task of a Databricks job; its parameters are the word and the arguments.

    Returns if the command succeeds; exiting would end a process that also runs Databricks' code. Raises CommandFailed
    if it fails.
    """
    word, *arguments = sys.argv[1:] or [""]
    if word not in FILES:
        raise CommandFailed(f"the first parameter of the task is {word!r}, expected one of: {', '.join(FILES)}")
    sys.argv = [str(INSTALLED / FILES[word]), *arguments]
    try:
        importlib.import_module(FILES[word].removesuffix(".py").replace("/", ".")).main()
    except InputError as error:
        raise CommandFailed(str(error)) from None
    except SystemExit as ended:
        # 0 after --help; otherwise the message was printed.
        if ended.code:
            raise CommandFailed(f"{word} ended with exit code {ended.code}; its message is above") from None


def refuse(word: str, arguments: list[str]) -> None:
    """Ends the process with exit code 2 and what was probably meant."""
    wrong = " ".join([word, *arguments[:1]]) if word == "--file" else word
    meant = get_close_matches(wrong.removeprefix("--file").strip(), FILES, n=1, cutoff=0.5)
    hint = f"; did you mean {meant[0]}?" if meant else ""
    print(f"{USAGE}\nerror: no command {wrong!r}{hint}\n`chexscale --help` lists the words.", file=sys.stderr)
    sys.exit(EXIT_INPUT_ERROR)


if __name__ == "__main__":
    main()
