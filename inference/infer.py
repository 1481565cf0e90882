"""Shows what the champion finds in image files (PNG, JPEG, DICOM, ...) and folders of them. Research use only.

    python inference/infer.py film.png                                  a table: probability, threshold, called or not
    python inference/infer.py --heatmaps heatmaps film.png other.dcm    the same, and pictures of the evidence
    python inference/infer.py --format csv folder > findings.csv        every finding of every file
    python inference/infer.py --format json folder | jq .findings       a line of JSON per file
    python inference/infer.py --mode fp32 --version 3 film.png          another precision, another version
    python inference/infer.py --model chexscale-3.zip film.png          a package (inference/package.py), no registry
    python inference/infer.py --age 64 --sex F --view PA film.png       for a model that takes these too

Answers come in the order of the files. Standard output holds the answers only; messages go to standard error. Exit code
0: every file was answered; 1: some files failed, with their reasons above; 2: wrong usage, or no model.
"""

import sys

from conf.arguments import ArgumentParser, add_model, load_arguments
from conf.errors import run_command
from conf.settings import MODES
from conf.startup import quick_imports
from conf.workspace import Workspace
from inference.film.answers import OPERATING_POINT
from inference.film.stated import EXPECTED

EXIT_FILE_FAILED = 1
READS = ("inference.registered_model", "inference.batch_size")
FORMATS = ("table", "json", "csv")


def main() -> None:
    settings, options = load_arguments(
        "Shows what the champion finds in image files.", "FILE_OR_FOLDER ...", add_own, reads=READS
    )
    workspace = Workspace.of(settings)
    with quick_imports():
        from inference.files.run import run
    sys.exit(EXIT_FILE_FAILED if run(settings, workspace, options) else 0)


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE_OR_FOLDER", help="image files, or folders that contain image files"
    )
    parser.add_argument("--mode", choices=MODES, default="int8", help="precision of the graph")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="table",
        help="table: all findings of one file, the called ones of many; json: a line per file; csv: a line per finding",
    )
    parser.add_argument(
        "--heatmaps",
        default="",
        help="folder for pictures of the called findings, or, if none is called, of the one nearest to its threshold",
    )
    parser.add_argument("--ten_crop", type=bool, default=False, help="average ten crops; takes eleven times as long")
    parser.add_argument("--threshold", default=OPERATING_POINT, help="operating point, such as sensitivity_0.9")
    wins = "for all files, whatever their DICOM tags say; only for a model that takes it; if omitted, the tags decide"
    for name, expected in EXPECTED.items():
        parser.add_argument(f"--{name}", type=str, default="", help=f"{expected}: {wins}")
    add_model(parser)
    parser.add_argument(
        "--version", default="champion", help="version of the registered model, as a number or an alias"
    )


if __name__ == "__main__":
    run_command(main)
