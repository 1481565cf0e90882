"""Shows the graph of a registered model in Netron, a viewer of networks, on a page in the browser. Ctrl-C ends it.

    python jobs/graph.py                         the champion's INT8 graph, at http://127.0.0.1:8080
    python jobs/graph.py 3 --mode onnx           version 3, its ONNX graph
    python jobs/graph.py --model FILE            a package's graph

Netron (MIT) is not part of the environment: uv fetches its newest release from the package index, because a release
stops showing graphs when it is half a year old. The graph stays on this machine, but Netron's page reports to Google
Analytics and ipinfo.io that it was opened, where it can reach them.
"""

import os
import socket
import subprocess
from typing import Literal

from conf.arguments import ArgumentParser, add_model, load_arguments
from conf.errors import InputError, run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("inference.registered_model",)
HOST = "127.0.0.1"
GraphMode = Literal["int8", "fp16", "fp32", "onnx"]


def main() -> None:
    settings, options = load_arguments(
        "Shows the graph of a registered model in Netron.", "[VERSION]", add_own, reads=READS
    )
    with quick_imports():
        from inference.model import graphs, onnx_graph
        from inference.model.model_files import CHAMPION, find_model
        from jobs.setup.commands import SetupError
        from jobs.setup.installer import find_uv, uv_environment
    wanted = str(options.version) if options.version else CHAMPION
    found = find_model(Workspace.of(settings), settings.inference.registered_model, wanted, options.model)
    file = found.variant(options.mode) / (onnx_graph.FILE if options.mode == "onnx" else graphs.FILE)
    if not file.exists():
        raise InputError(f"{found.title} has no graph {file}: choose another with --mode")
    check_port(options.port)
    try:
        uv = find_uv()
    except SetupError as error:
        raise InputError(f"no uv, which fetches Netron: {error}") from error
    netron = [str(uv), "tool", "run", "netron@latest"]
    # uv's lines on what it fetches, or why it cannot, go to the screen.
    if subprocess.run([*netron, "--version"], env=uv_environment(), stdout=subprocess.DEVNULL).returncode:
        raise InputError(
            "uv cannot start Netron: the lines above say why. It needs the package index; without it, open "
            f"{file} with a Netron of your own (https://github.com/lutzroeder/netron)"
        )
    print(f"{found.title}, {options.mode.upper()}: {file}")
    print("The graph stays on this machine; Netron's page tells Google Analytics and ipinfo.io that it was opened")
    print(f"Next: open http://{HOST}:{options.port}; Ctrl-C ends it", flush=True)
    os.execve(uv, [*netron, "--host", HOST, "--port", str(options.port), str(file)], uv_environment())


def check_port(port: int) -> None:
    """Raises InputError if another program listens on this port."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port is {port}, expected a number from 1 to 65535")
    with socket.socket() as tried:
        # As servers do; otherwise the port of one that has just ended would count as taken.
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except OSError as error:
            raise InputError(f"port {port} of {HOST} is taken ({error.strerror}): choose another --port") from error


def add_own(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "version", nargs="?", type=int, default=0, help="number of the registered version; if omitted, the champion"
    )
    parser.add_argument("--mode", type=GraphMode, default="int8", help="precision: int8, fp16, fp32 or onnx")
    parser.add_argument("--port", type=int, default=8080, help="port of this machine on which Netron listens")


if __name__ == "__main__":
    run_command(main)
