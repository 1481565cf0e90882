"""A Slurm cluster of two nodes on this machine: as root, two hosts in network namespaces; otherwise on one host."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import gethostname

import psutil

from jobs.benchmarks.stores.link import free_port
from jobs.benchmarks.training.hosts import two_hosts
from tests.processes import wait_for

PROJECT = Path(__file__).parents[2]
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
CONFIGURATION = """\
ClusterName=chexscale
SlurmctldHost={controller}
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge/socket
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ReturnToService=2
# Slurm counts down to the time limit, and asks for a new schedule, as often as this, seconds.
SchedulerParameters=sched_interval=1
JobAcctGatherType=jobacct_gather/none
SlurmdTimeout=10
KillWait=10
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes={names} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""


def lacks() -> list[str]:
    """Programs that this machine lacks."""
    return [program for program in PROGRAMS if not shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")]


@dataclass
class Cluster:
    folder: Path
    nodes: tuple[str, str]
    environment: dict[str, str]
    daemons: dict[str, psutil.Popen] = field(default_factory=dict)

    def call(self, *command: str, **variables: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=PROJECT,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def submit(self, file: str, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
        """The new job's number. The job writes to log_of(number)."""
        log = f"--output={self.folder}/job-%j.log"
        # The node's CPUs are few, so each node has one of them.
        options = ("--cpus-per-task=1", log, *options)
        done = self.call("sbatch", "--parsable", *options, f"jobs/slurm/{file}.sbatch", *arguments, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def log_of(self, job: str) -> str:
        log = self.folder / f"job-{job}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def facts(self, job: str) -> dict[str, str]:
        words = self.call("scontrol", "--oneliner", "show", "job", job).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def finish(self, job: str, state: str = "COMPLETED", seconds: float = 120) -> str:
        """Waits until the job has ended, and returns what it has written."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_for(lambda: self.facts(job)["JobState"] in ended, seconds)
        assert self.facts(job)["JobState"] == state, self.log_of(job)
        return self.log_of(job)

    def wait_for_restart(self, job: str, number: int) -> None:
        """Waits until the job has gone back to the queue for the n-th time."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        end = time.monotonic() + 90
        while (facts := self.facts(job)).get("Restarts") != str(number):
            waiting = facts["JobState"] not in ended and time.monotonic() < end
            assert waiting, f"{facts['JobState']}, exit code {facts['ExitCode']}\n{self.log_of(job)}"
            time.sleep(0.1)

    def start_now(self, job: str) -> None:
        """Starts a job that Slurm has put back into its queue, where it would wait for two minutes."""
        wait_for(lambda: self.facts(job)["JobState"] == "PENDING")
        # A node takes a job that starts in the very second in which its last run ended for that run, and refuses it.
        time.sleep(1.1)
        self.call("scontrol", "update", f"JobId={job}", "StartTime=now")

    def start_daemon(self, name: str, *command: str, node: str = "") -> None:
        """node: host in whose network it runs."""
        script, words = 'exec "$@"', []
        if node and (Path("/run/netns") / node).exists():
            words = ["nsenter", f"--net=/run/netns/{node}", "unshare", "--mount", "--uts"]
            script = f'mount --bind {self.folder}/hosts /etc/hosts; hostname {node}; exec "$@"'
        with (self.folder / f"{name}.out").open("wb") as output:
            self.daemons[name] = psutil.Popen(
                [*words, "sh", "-c", script, "sh", *command],
                env=self.environment,
                stdout=output,
                stderr=output,
                cwd=PROJECT,
            )

    def kill(self, name: str) -> None:
        """Kills a daemon and all that it has started, as a power cut does."""
        daemon = self.daemons.pop(name)
        for process in [daemon, *daemon.children(recursive=True)]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                # It ended with its parent.
                continue
        daemon.wait(10)

    def stop(self) -> None:
        """Kills the daemons, and all processes of jobs, which are no children of theirs."""
        for name in list(self.daemons):
            self.kill(name)
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]:
                    process.kill()
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                # It has ended meanwhile, or is another user's.
                continue


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """A running cluster. Its daemons, and all that they have started, are gone at the end."""
    with ExitStack() as undo:
        folder.chmod(0o755)
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        here, user = gethostname(), "root" if os.getuid() == 0 else os.environ["USER"]
        can = all(map(shutil.which, ("ip", "nsenter", "unshare")))
        is_two = can and subprocess.run(["unshare", "--net", "--mount", "--uts", "true"]).returncode == 0
        if is_two:
            hosts, controller = undo.enter_context(two_hosts())
            names = tuple(host.name for host in hosts)
            known = {"localhost": "127.0.0.1", "controller": controller, **{host.name: host.address for host in hosts}}
            (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in known.items()))
            nodes = [f"NodeName={host.name} NodeAddr={host.address} Port={free_port()}" for host in hosts]
        else:
            names, controller = ("one", "two"), "127.0.0.1"
            nodes = [f"NodeName={name} NodeHostname={here} NodeAddr=127.0.0.1 Port={free_port()}" for name in names]
        for name in names:
            (folder / "spool" / name).mkdir()
        configuration = folder / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                user=user,
                controller=f"{here}({controller})",
                port=free_port(),
                names=",".join(names),
                nodes="\n".join(f"{node} CPUs=1 RealMemory=4000 Gres=gpu:2" for node in nodes),
            )
        )
        # Any device files will do, because Slurm counts them and nobody opens them.
        (folder / "gres.conf").write_text("Name=gpu File=/dev/zero\nName=gpu File=/dev/full\n")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "CHEXSCALE_"))
        }
        environment |= {
            "SLURM_CONF": str(configuration),
            "PATH": f"{os.environ['PATH']}:/usr/sbin",
            "CHEXSCALE_VENV": str(Path(sys.executable).parent.parent),
        }
        cluster = Cluster(folder, names, environment)
        undo.callback(cluster.stop)
        munge = {"key-file": key, "socket": folder / "munge/socket", "pid-file": folder / "munge/pid"}
        munge |= {"log-file": folder / "munge/log", "seed-file": folder / "munge/seed"}
        cluster.start_daemon("munged", "munged", "--foreground", *(f"--{name}={path}" for name, path in munge.items()))
        wait_for((folder / "munge/socket").exists)
        cluster.start_daemon("slurmctld", "slurmctld", "-D")
        for name in names:
            cluster.start_daemon(name, "slurmd", "-D", "-N", name, node=name)
        wait_for(lambda: cluster.call("sinfo", "--noheader", "--format=%T %D").stdout.strip() == "idle 2")
        yield cluster
