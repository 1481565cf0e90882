"""How the threads of OpenMP wait for each other, which its library reads once, when torch or scikit-learn loads it."""

from collections.abc import MutableMapping

# Each of these says how long a thread spins before it sleeps.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_waiting_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Has OpenMP's threads sleep instead of spin while they wait, unless the environment says how they wait.

    By default they spin, and take the core from whatever they wait for if any other process wants one: beside one busy
    neighbour, torch then trains at a small part of its speed (jobs/benchmarks/training/neighbours.py). PASSIVE is
    understood by GNU's OpenMP, which torch brings, and by Intel's. Source: OpenMP 5.2, section 21.7.
    """
    if not any(name in environ for name in WAITING):
        environ["OMP_WAIT_POLICY"] = "PASSIVE"
