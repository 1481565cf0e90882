"""Writes a registered model into one file, from which infer, predict and serve run without any registry.

    python inference/package.py                                 the champion -> chexscale-3.zip
    python inference/package.py --output model.zip 2            version 2
    python inference/package.py --modes '[fp32, fp16]'          more precisions than INT8 (and ONNX if there is one)
    python inference/package.py --model_server DIR              the layout that OpenVINO Model Server and KServe read

    python inference/infer.py --model chexscale-3.zip film.png

The same model gives the same bytes, until it is tested at another site, which its card then names. Research use only,
not for clinical use.
"""

import shlex
from pathlib import Path

from conf.arguments import ArgumentParser, load_arguments
from conf.errors import InputError, run_command
from conf.settings import Mode
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("inference.registered_model",)
ENDING = ".zip"


def main() -> None:
    settings, options = load_arguments(
        "Writes a registered model into one file that needs no registry.", "[VERSION]", add_own, reads=READS
    )
    if options.output and options.model_server:
        raise InputError("--output and --model_server are both given, expected one of them: run the command twice")
    if options.output and not options.output.endswith(ENDING):
        raise InputError(f"--output is {options.output}, expected a file that ends with {ENDING}")
    if options.model_server and (len(options.modes) > 1 or "torch" in options.modes):
        raise InputError("--model_server takes one graph, expected --modes with one of int8, fp16, fp32, onnx")
    with quick_imports():
        from inference.model.model_files import CHAMPION, find_model
        from inference.model.packing import BASE_MODE, write_model_server, write_package
        from inference.model.registry import tests_of
    workspace, which = Workspace.of(settings), str(options.version) if options.version else CHAMPION
    found = find_model(workspace, settings.inference.registered_model, which)
    if options.model_server:
        mode = options.modes[0] if options.modes else BASE_MODE
        folder = write_model_server(found, mode, Path(options.model_server).expanduser())
        print(f"{found.title}, {mode.upper()}, is in {folder / str(found.version)}")
        shown = shlex.quote(str(folder.parent / "config.json"))
        print(f"Next: `ovms --config_path {shown} --rest_port 8000`, or copy {folder} to a KServe storageUri")
        return
    modes = options.modes or [mode for mode in ("onnx",) if (found.folder / mode).is_dir()]
    modes = [mode for mode in dict.fromkeys(modes) if mode != BASE_MODE]
    output = Path(options.output or f"{found.name}-{found.version}{ENDING}").expanduser()
    identity = write_package(found, modes, output, tests_of(workspace, found.name, found.version))
    held = ", ".join(mode.upper() for mode in (BASE_MODE, *modes))
    print(f"{output} holds {found.title}, {held}; package {identity}, {output.stat().st_size:,} bytes")
    print(f"Next: sign it (docs/serving.md), or `python inference/infer.py --model {shlex.quote(str(output))} FILE`")


def add_own(parser: ArgumentParser) -> None:
    parser.add_argument(
        "version", nargs="?", type=int, default=0, help="number of the registered version; if omitted, the champion"
    )
    parser.add_argument(
        "--output", metavar="FILE", default="", help="the file to write; if omitted, NAME-VERSION.zip in this folder"
    )
    parser.add_argument(
        "--modes",
        type=list[Mode],
        default=[],
        help="precisions besides INT8, which is always in it; if omitted, ONNX, if the model has it",
    )
    parser.add_argument(
        "--model_server",
        metavar="DIR",
        default="",
        help="add the model to this repository of OpenVINO Model Server instead: DIR/NAME/VERSION and DIR/config.json",
    )


if __name__ == "__main__":
    run_command(main)
