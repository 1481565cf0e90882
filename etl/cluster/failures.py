"""What went wrong on a worker, said once and without Java's stack traces. Imports no pyspark.

Spark passes on only the text of an exception, in Java's words and once per task that had it. So a worker raises a
WorkerError, whose text holds what the driver needs, and the driver finds it in Spark's text.
"""

import json
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from conf.errors import InputError
from etl.contract.storage import is_of_a_store

NO_PACKAGE = (
    "install the environment of CheXScale on every worker, at the same path, or set PYSPARK_PYTHON to where it is there"
)
# What Spark's text contains -> what has happened, and the next step.
KNOWN = {
    "Python worker exited unexpectedly": "a worker process was killed each time, usually because memory ran out: give "
    "the machine more memory, or start fewer processes, as in `spark-submit --master 'local[1,4]'`",
    "ExecutorLostFailure": "an executor was lost each time, usually because memory ran out: raise "
    "spark.executor.memoryOverhead, or look at the executor's log in Spark's UI",
    "requires more slots": "the tasks must run at the same time: start fewer, or give the cluster more cores (see "
    "spark.task.cpus, spark.executor.instances)",
    "failed barrier ResultStage": "a task of several that need each other was lost, with its process or its machine: "
    "Spark's UI and the executors' logs say why; start the command again",
    "PYTHON_VERSION_MISMATCH": f"the workers run another version of Python than the driver: {NO_PACKAGE}",
    "Cannot run program": f"a worker cannot start Python: {NO_PACKAGE}",
    "ModuleNotFoundError": f"a worker lacks a package: {NO_PACKAGE}",
}
KINDS = {"input": InputError, "machine": OSError, "package": ModuleNotFoundError}
"""other exceptions are bugs"""


class WorkerError(Exception):
    """A failure on a worker: its text is JSON with the kind, the message and the traceback of the exception."""


@contextmanager
def passed_on() -> Iterator[None]:
    """On a worker: turns an exception into a WorkerError."""
    try:
        yield
    except Exception as error:
        kind = next((kind for kind, types in KINDS.items() if isinstance(error, types)), "bug")
        kind = "machine" if is_of_a_store(error) else kind
        described = {"kind": kind, "message": str(error), "traceback": traceback.format_exc()}
        raise WorkerError(json.dumps(described)) from None


@contextmanager
def received(is_of_spark: Callable[[Exception], bool]) -> Iterator[None]:
    """On the driver: raises what the workers have passed on.

    is_of_spark: whether an exception is one of Spark's. Raises InputError for wrong input and for a failure of the
    machine, RuntimeError with the worker's traceback for a bug, and leaves what it does not understand as it is.
    """
    try:
        yield
    except Exception as error:
        if not is_of_spark(error) or not (understood := read_failure(str(error))):
            raise
        raise understood from None


def read_failure(text: str) -> Exception | None:
    """The exception to raise on the driver for the text of one of Spark's; None if it is not understood."""
    found = re.search(rf"{WorkerError.__name__}: (\{{.*\}})$", text, re.MULTILINE)
    if found:
        failure = json.loads(found[1])
        if failure["kind"] == "input":
            return InputError(failure["message"])
        if failure["kind"] == "package":
            return InputError(f"{failure['message']}: {KNOWN['ModuleNotFoundError']}")
        if failure["kind"] == "machine":
            return InputError(
                f"a worker cannot continue ({failure['message']}): nothing was committed; check permissions and free "
                "space at the table, and run the command again"
            )
        return RuntimeError(f"a worker of Spark failed:\n{failure['traceback']}")
    for sign, meaning in KNOWN.items():
        if sign in text:
            what = re.search(rf"{sign}[^\n]*?(?=\. |$)", text, re.MULTILINE)[0]
            return InputError(f"Spark gave up ({what:.200}): {meaning}")
    return None
