"""Writes the defaults of the environment's own Spark, such as a quiet console. A cluster's Spark keeps its own."""

from jobs.setup.commands import step
from jobs.setup.places import PYSPARK

FILES = {
    # Spark's own file logs warnings that need no action: native Hadoop, host names, log levels.
    "log4j2.properties": """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n%ex
""",
    # Enables Delta, so that any Spark program of this environment can read the tables.
    # As on a cluster, a task is tried four times, because a worker may be killed when memory runs out.
    "spark-defaults.conf": """\
spark.master                    local[*,4]
spark.ui.showConsoleProgress    false
spark.sql.extensions            io.delta.sql.DeltaSparkSessionExtension
spark.sql.catalog.spark_catalog org.apache.spark.sql.delta.catalog.DeltaCatalog
""",
}


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
