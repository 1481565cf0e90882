"""Starts one rank with each launcher, and reports which collectives it had and whether they changed the losses."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from jobs.benchmarks.gpu.plan import Scale
from jobs.benchmarks.training.fed import measured

TIMEOUT_S = 90
ENDING_S = 5
"""for a launcher to end its ranks and itself"""
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
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            output = f"nothing after {TIMEOUT_S} s"
        finally:
            if process.poll() is None:
                _end(process)
    result = measured(output)
    if process.returncode or result is None:
        raise RuntimeError(f"exit code {process.returncode}, see its output\n{output[-4000:]}")
    return result | {"as_expected": result["losses_apart"] < LIMIT}


def _end(process: subprocess.Popen) -> None:
    """Has a launcher end its ranks; one that does not is killed, and its ranks end by their own alarm."""
    process.terminate()
    try:
        process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
