"""Measures what a process that serves one variant of the model costs; prints JSON for measuring/speed.py.

python -m inference.candidate.measuring.footprint torch|fp32|fp16|int8|onnx FOLDER BATCH_SIZE
"""

import time

STARTED = time.perf_counter()

import json  # noqa: E402, the clock comes first
import re  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from conf.errors import run_command  # noqa: E402
from inference.model.inputs import without_films  # noqa: E402
from inference.model.variants import open_variant  # noqa: E402


def main() -> None:
    predict, properties = open_variant(sys.argv[1], Path(sys.argv[2]))
    predict(*without_films(properties, 1))
    seconds = time.perf_counter() - STARTED
    predict(*without_films(properties, int(sys.argv[3])))
    # Not getrusage: in a new process, its peak starts at the memory of the parent process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_mb = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    print(json.dumps({"first_answer_s": seconds, "peak_memory_mb": peak_mb}))


if __name__ == "__main__":
    run_command(main)
