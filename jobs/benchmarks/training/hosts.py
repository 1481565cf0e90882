"""What does a network between two hosts cost a training step? Needs root, for two network namespaces of this machine.

    python -m jobs.benchmarks.training.hosts                                    resnet10_half at 96 pixels
    python -m jobs.benchmarks.training.hosts --model densenet121 --size_px 128 --steps 5

Two ranks of one core each exchange their gradients under torchrun: in turns on one host with two cores, and on two
hosts with one core each. The two hosts are namespaces on one bridge, so the packets pass through the whole network
stack, but through no cable. The command takes the options of `ranks`; `--repetitions` counts the starts of each.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.errors import InputError, run_command
from jobs.benchmarks.training import ranks
from jobs.benchmarks.training.fed import measured

MEETING = 29512


@dataclass(frozen=True)
class Host:
    """A network namespace with a name and an address."""

    name: str
    address: str


@contextmanager
def two_hosts() -> Iterator[tuple[list[Host], str]]:
    """Two network namespaces on one bridge, and this machine's address there; they are removed at the end."""
    own, net = f"{os.getpid() % 0xFFFF:04x}", f"10.{77 + os.getpid() % 100}.{os.getpid() % 250}"
    bridge = f"chx{own}"
    hosts = [Host(f"host{letter}{own}", f"{net}.{number}") for number, letter in enumerate("ab", start=1)]
    with ExitStack() as undo:

        def ip(*words: str, check: bool = True) -> None:
            subprocess.run(["ip", *words], check=check, capture_output=True)

        ip("link", "add", bridge, "type", "bridge")
        undo.callback(ip, "link", "del", bridge, check=False)
        ip("addr", "add", f"{net}.254/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host in hosts:
            ip("netns", "add", host.name)
            undo.callback(ip, "netns", "del", host.name, check=False)
            ip("link", "add", f"v{host.name}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", f"v{host.name}", "master", bridge, "up")
            ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
            ip("-n", host.name, "link", "set", "eth0", "up")
            ip("-n", host.name, "link", "set", "lo", "up")
        yield hosts, f"{net}.254"


def main() -> None:
    arguments = ranks.parse_arguments(__doc__)
    if os.geteuid() != 0 or not shutil.which("ip"):
        raise InputError("two hosts on one machine need root and the program `ip` (package iproute2)")
    if len(os.sched_getaffinity(0)) < 2:
        raise InputError("two ranks need two cores, but this process has 1: start it with more")
    pairs = []
    with two_hosts() as (hosts, _):
        for number in range(arguments.repetitions):
            print(f"turn {number + 1} of {arguments.repetitions}", flush=True)
            of_both = ranks.launch("torchrun", 2), launch(hosts)
            pairs.append([np.median(seconds[ranks.TOGETHER]) for seconds in of_both])
    one, two = np.array(pairs).T
    table = Table("ms of a step on one host", "on two hosts", "ratio", caption="medians, with the range of the ratios")
    ratios = two / one
    spread = f"{np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f})"
    table.add_row(f"{1000 * np.median(one):.0f}", f"{1000 * np.median(two):.0f}", spread)
    Console().print(table)


def launch(hosts: list[Host]) -> dict:
    """Starts one rank on each host and returns what rank 0 measured. Raises InputError if they fail."""
    together = ["--nnodes", "2", "--nproc_per_node", "1", "--rdzv_backend", "static"]
    together += ["--rdzv_endpoint", f"{hosts[0].address}:{MEETING}"]
    # No name server knows the hosts, so gloo takes the address of the interface.
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0"}
    agents = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", host.name, "torchrun", *together, "--node_rank", str(number)),
                *("--local_addr", host.address, "-m", ranks.__name__, *sys.argv[1:], "--rank"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, host in enumerate(hosts)
    ]
    said = [agent.communicate() for agent in agents]
    found = [result for output, _ in said if (result := measured(output))]
    if any(agent.returncode for agent in agents) or not found:
        raise InputError("a rank failed:\n" + "\n".join(errors[-2000:] for _, errors in said))
    return found[0]


if __name__ == "__main__":
    run_command(main)
