"""Manifest to Delta table in one pass of Spark: the one owner of pyspark and delta-spark."""

import json
import os
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from delta.tables import DeltaTable
from pyspark.sql import Observation, SparkSession
from pyspark.sql import functions as F
from tqdm import tqdm

from conf.settings import Etl
from etl.images import BadImage, decode_grey, to_square
from etl.schema import image_column
from etl.table import latest_version

MANIFEST_SCHEMA = """
    position int, path string, image_id string, patient_id string, follow_up int, age_years float, sex string,
    view string, findings array<float>, split string
"""
CONTRACT_COLUMNS = ["image_id", "patient_id", "follow_up", "age_years", "sex", "view", "findings", "split"]
# Rows of an Arrow batch between Spark and Python: 64 images of 512 and 256 pixels are 21 MB.
ARROW_ROWS = 64


def start_spark() -> SparkSession:
    """A quiet session with Delta."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    options = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.execution.arrow.maxRecordsPerBatch": ARROW_ROWS,
        "spark.ui.showConsoleProgress": "false",
        # Delta reads its own log in so many tasks; the default of 50 takes longer than the log of any radiograph table.
        "spark.databricks.delta.snapshotPartitions": 2,
    }
    builder = SparkSession.builder.appName("chexscale-etl")
    for key, value in options.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _fix_row_groups(spark: SparkSession, rows: int) -> None:
    """Makes the Parquet writer close a row group after every `rows` rows, and store pixels as they are.

    The writer looks every `rows` rows whether the row group is full, and any row fills these. (Spark before 4.2 ignores
    parquet.block.row.count.limit.) Pixels never repeat: looking for repetitions only costs time.
    """
    spark.conf.set("parquet.block.size", 1024)
    spark.conf.set("parquet.page.size.row.check.min", rows)
    spark.conf.set("parquet.page.size.row.check.max", rows)
    spark.conf.set("parquet.enable.dictionary", "false")


def write_shards(spark: SparkSession, manifest: pd.DataFrame, table: Path, settings: Etl) -> dict:
    """Decodes, resizes and writes every image of the manifest as one new version of the Delta table.

    manifest: columns of MANIFEST_SCHEMA without position, split one of SPLITS. Rows are shuffled by settings.seed.
    Returns what was observed on the way: `bad` (list of image_id, path, reason), `rows`, per image column
    `sum_S`, `sum_of_squares_S` (of the training split's pixels), and `worker_peak_mb`.
    """
    order = np.random.default_rng(settings.seed).permutation(len(manifest))
    shuffled = manifest.sort_values("image_id").iloc[order].sort_values("split", kind="stable")
    rows = shuffled.assign(position=range(len(shuffled)))
    num_files = max(spark.sparkContext.defaultParallelism, -(-len(rows) // settings.rows_per_file))
    decoded = (
        spark.createDataFrame(_to_arrow(rows), MANIFEST_SCHEMA)
        .repartitionByRange(num_files, "position")
        .sortWithinPartitions("position")
        .mapInArrow(_decoder(settings.sizes_px), _decoded_schema(settings.sizes_px))
    )
    observation = Observation("etl")
    is_bad, is_train = F.col("reason").isNotNull(), F.col("split") == "train"
    sums = [
        F.sum(F.when(is_train, F.col(f"{kind}_{size}"))).alias(f"{kind}_{size}")
        for size in settings.sizes_px
        for kind in ("sum", "sum_of_squares")
    ]
    observed = decoded.observe(
        observation,
        F.count(F.when(~is_bad, 1)).alias("rows"),
        F.to_json(F.collect_list(F.when(is_bad, F.struct("image_id", "path", "reason")))).alias("bad"),
        F.max("worker_peak_mb").alias("worker_peak_mb"),
        *sums,
    )
    images = [image_column(size) for size in settings.sizes_px]
    _fix_row_groups(spark, settings.rows_per_row_group)
    with _Progress(spark, num_files, len(rows)):
        good = observed.where(~is_bad).select(*CONTRACT_COLUMNS, *images)
        writer = good.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
        writer.partitionBy("split").save(str(table))
    seen = observation.get
    return {**seen, "bad": json.loads(seen["bad"])}


@contextmanager
def restored_on_error(spark: SparkSession, table: Path) -> Iterator[None]:
    """An error inside makes the version of before the newest again; a table that is new stays, and no card names it."""
    before = latest_version(table)
    try:
        yield
    except Exception:
        if before is not None and latest_version(table) != before:
            DeltaTable.forPath(spark, str(table)).restoreToVersion(before)
        raise


def _to_arrow(rows: pd.DataFrame) -> pa.Table:
    columns = {
        "position": pa.int32(),
        "path": pa.string(),
        "image_id": pa.string(),
        "patient_id": pa.string(),
        "follow_up": pa.int32(),
        "age_years": pa.float32(),
        "sex": pa.string(),
        "view": pa.string(),
        "findings": pa.list_(pa.float32()),
        "split": pa.string(),
    }
    # from_pandas: NaN means null, which is right for unknown scalars; an unknown finding stays NaN in its list.
    return pa.table(
        {name: pa.array(rows[name], type=kind, from_pandas=name != "findings") for name, kind in columns.items()}
    )


def _decoded_schema(sizes_px: list[int]) -> str:
    images = [f"{image_column(size)} binary, sum_{size} double, sum_of_squares_{size} double" for size in sizes_px]
    return ", ".join([MANIFEST_SCHEMA.strip(), *images, "reason string", "worker_peak_mb double"])


def _decoder(sizes_px: list[int]):
    """The function that Spark's Python workers run: manifest rows in, rows with pixels or with a reason out."""

    def decode(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            added = {f"{kind}_{size}": [] for size in sizes_px for kind in ("image", "sum", "sum_of_squares")}
            reasons = []
            for path in batch.column("path"):
                squares, reason = _load_squares(path.as_py(), sizes_px)
                reasons.append(reason)
                for size, square in zip(sizes_px, squares, strict=True):
                    wide = None if square is None else square.ravel().astype(np.float32)
                    added[f"image_{size}"].append(None if square is None else square.tobytes())
                    added[f"sum_{size}"].append(None if square is None else float(wide.sum(dtype=np.float64)))
                    added[f"sum_of_squares_{size}"].append(None if square is None else float(wide @ wide))
            columns = [pa.array(v, pa.binary() if k.startswith("image") else pa.float64()) for k, v in added.items()]
            peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            columns += [pa.array(reasons, pa.string()), pa.array([peak_mb] * len(reasons), pa.float64())]
            names = [*batch.schema.names, *added, "reason", "worker_peak_mb"]
            yield pa.RecordBatch.from_arrays([*batch.columns, *columns], names)

    return decode


def _load_squares(path: str, sizes_px: list[int]) -> tuple[list[np.ndarray | None], str | None]:
    """The image at each size and None, or Nones and the reason why there is no image."""
    try:
        image = decode_grey(Path(path).read_bytes())
    except BadImage as bad:
        return [None] * len(sizes_px), str(bad)
    except OSError as error:
        return [None] * len(sizes_px), f"cannot be read: {error.strerror}"
    return [to_square(image, size) for size in sizes_px], None


class _Progress:
    """A progress bar over Spark's finished tasks, each of which is one file of the table."""

    def __init__(self, spark: SparkSession, num_files: int, num_images: int):
        self._tracker = spark.sparkContext.statusTracker()
        self._num_files = num_files
        self._bar = tqdm(total=num_images, desc="images to shards", unit="image", smoothing=0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, error_type, *_):
        self._done.set()
        self._thread.join()
        if error_type is None:
            self._show(self._bar.total)
        self._bar.close()

    def _poll(self):
        while not self._done.wait(0.5):
            stages = [self._tracker.getStageInfo(stage) for stage in self._tracker.getActiveStageIds()]
            finished = max((s.numCompletedTasks for s in stages if s and s.numTasks == self._num_files), default=0)
            self._show(finished * self._bar.total // self._num_files)

    def _show(self, images: int):
        self._bar.update(max(0, images - self._bar.n))
