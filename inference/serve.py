"""Serves the champion over HTTP, with a page: findings, heat maps, metrics.

    python inference/serve.py                                      the champion of runs/demo, at http://127.0.0.1:8000
    python inference/serve.py --config conf/nih.yaml               of another scenario's workspace
    python inference/serve.py --model chexscale-3.zip              a package (inference/package.py), no registry
    python inference/serve.py --serving.port 0 --serving.mode fp32
    CHEXSCALE_API_KEY=... python inference/serve.py --serving.host 0.0.0.0 --serving.allowed_hosts '["xray.example"]'

    curl -F files=@film.png http://127.0.0.1:8000/v1/predict

It switches to a new champion by itself; a package stays the model in use. On Ctrl-C or SIGTERM it answers the requests
in progress, then ends. Its settings are in the section `serving` of conf/settings. Research use only, not for
clinical use.
"""

import ipaddress
import os
import signal
import socket
import subprocess

from conf.arguments import add_model, load_arguments
from conf.errors import InputError, run_command
from conf.settings import Settings
from conf.startup import quick_imports
from conf.workspace import Workspace
from inference.model.model_files import ModelFiles, find_model
from inference.service.engine.watch import start_watch

API_KEY_VARIABLE = "CHEXSCALE_API_KEY"
MIN_KEY = 16
# Time that requests in progress get at the end; a large network needs a second for a full batch.
GRACE_S = 20
READS = ("serving", "inference.registered_model")


def main() -> None:
    settings, options = load_arguments("Serves the champion over HTTP, with a page.", "", add_model, reads=READS)
    serving = settings.serving
    key = read_key(serving.host)
    listener = listen(serving.host, serving.port)
    workspace = Workspace.of(settings)
    if options.model:
        package = find_model(workspace, "", package=options.model)
        package.variant(serving.mode)
        serve(settings, workspace, key, listener, package=package)
        return
    # Started now, because this and the imports below both take seconds, and can run side by side.
    watch = start_watch(workspace, settings.inference.registered_model, serving.reload_s)
    try:
        serve(settings, workspace, key, listener, watch)
    finally:
        watch.kill()


def read_key(host: str) -> str:
    """The API key; empty: none. Raises InputError if it is easily guessed, or missing although others can connect."""
    key = os.environ.get(API_KEY_VARIABLE, "")
    if key and (len(key) < MIN_KEY or not key.isascii()):
        raise InputError(f"{API_KEY_VARIABLE} has {len(key)} characters, expected at least {MIN_KEY}, all ASCII")
    if not key and not is_this_machine(host):
        raise InputError(
            f"serving.host is {host}, which other machines can call, and there is no API key: set "
            f"{API_KEY_VARIABLE} (such as to the output of `openssl rand -hex 16`), or listen on 127.0.0.1"
        )
    return key


def is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Opens the port. Raises InputError if the port is taken, or if the address is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is given, because only then does asyncio send small answers at once (TCP_NODELAY).
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Until this socket listens, others could bind the same port.
        listener.listen()
    except OSError as error:
        raise InputError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another with --serving.port or "
            "--serving.host, or stop the program that listens there"
        ) from error
    return listener


def serve(
    settings: Settings,
    workspace: Workspace,
    key: str,
    listener: socket.socket,
    watch: subprocess.Popen | None = None,
    package: ModelFiles | None = None,
) -> None:
    # Imported here, because they take long: wrong settings are reported, and the registry is asked, before.
    with quick_imports():
        from inference.service.app import create_app
        from inference.service.server import run

    # The server handles these signals while it runs, and raises them again at its end, which is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    run(create_app(settings, workspace, key, watch, package), listener, GRACE_S)


if __name__ == "__main__":
    run_command(main)
