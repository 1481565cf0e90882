"""Starts one rank with each launcher, and reports which collectives it had and whether they changed the losses."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from jobs.benchmarks.gpu.plan import Scale

TIMEOUT_S = 90
LIMIT = 1e-2
"""largest relative difference of two losses: on a GPU, two runs of the same steps differ too"""
MODULE = ["-m", "jobs.benchmarks.gpu.rank"]
COMMANDS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", *MODULE],
    "horovodrun": [str(Path(sys.executable).parent / "horovodrun"), "--gloo", "-np", "1", sys.executable, *MODULE],
}


def launch(launcher: str, scale: Scale) -> dict:
    """What the rank measured. Raises RuntimeError, with the end of its output, if it failed."""
    if launcher == "horovodrun" and importlib.util.find_spec("horovod") is None:
        return {"outcome": "skipped, horovod is not installed"}
    command = COMMANDS[launcher] + (["--tiny"] if scale.device == "cpu" else [])
    # A launcher that is killed leaves its ranks behind, so all are killed together.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            output = f"nothing after {TIMEOUT_S} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    found = [line.partition("MEASURED ")[2] for line in output.splitlines() if "MEASURED " in line]
    if process.returncode or not found:
        raise RuntimeError(f"exit code {process.returncode}, see its output\n{output[-4000:]}")
    measured = json.loads(found[0])
    return measured | {"as_expected": measured["losses_apart"] < LIMIT}
