"""How tests start programs of Spark."""

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]


# tables.SMALL as a scenario.
SCENARIO = """
etl:
  sizes_px: [32, 64]
  val_fraction: 0.3
  rows_per_row_group: 5
  rows_per_file: 11
  quality: {min_side_px: 0, constant: false, clipped: false, inverted: false}
"""


# PATH leads Spark and its Python workers to the environment's own programs; nothing leaves the machine.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "SPARK_LOCAL_IP": "127.0.0.1",
}


# For programs that live for seconds.
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
