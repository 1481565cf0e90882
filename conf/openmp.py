"""How the threads of OpenMP wait for each other, which its library reads once, when torch or scikit-learn loads it."""

from collections.abc import MutableMapping

# Each of these says how long a thread spins before it sleeps.
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# GNU's OpenMP, which torch brings, takes the second one, Intel's the first. GNU's own count is 300,000 rounds, or 1,000
# where it knows of more threads than cores. Sources: OpenMP 5.2, section 21.7; libgomp's manual, GOMP_SPINCOUNT.
BRIEFLY = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}


def let_waiting_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Has OpenMP's threads spin only briefly before they sleep, unless the environment says how they wait.

    By default they spin for milliseconds, and take the core from whatever they wait for if any other process wants one.
    Threads that sleep at once are slow to wake up, which costs a fifth of a small network's speed on idle cores
    (jobs/benchmarks/training/neighbours.py).
    """
    if not any(name in environ for name in WAITING):
        environ.update(BRIEFLY)
