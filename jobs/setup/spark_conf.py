"""Writes the defaults of the environment's own Spark, such as a quiet console. A cluster's Spark keeps its own."""

from conf.programs import SPARK_DEFAULTS
from jobs.setup.commands import step
from jobs.setup.places import PYSPARK

DEFAULTS = {file.name: file.read_text(encoding="utf-8") for file in sorted(SPARK_DEFAULTS.iterdir())}
# Enables Delta, whose jars only set-up installs, so that any Spark program of this environment can read the tables.
DELTA = """\
spark.sql.extensions            io.delta.sql.DeltaSparkSessionExtension
spark.sql.catalog.spark_catalog org.apache.spark.sql.delta.catalog.DeltaCatalog
"""
FILES = {**DEFAULTS, "spark-defaults.conf": DEFAULTS["spark-defaults.conf"] + DELTA}


def is_written() -> bool:
    return all(
        (PYSPARK / "conf" / name).is_file() and (PYSPARK / "conf" / name).read_text(encoding="utf-8") == text
        for name, text in FILES.items()
    )


def write() -> None:
    with step("Spark's defaults"):
        (PYSPARK / "conf").mkdir(exist_ok=True)
        for name, text in FILES.items():
            (PYSPARK / "conf" / name).write_text(text, encoding="utf-8")
