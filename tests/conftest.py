"""Shared by all tests: one Spark session, NIH-format folders made in memory, a small table and its card."""

import csv
import os
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from conf.startup import quick_imports

LABEL_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
pytest_plugins = ["tests.object_store", "tests.spark_cluster", "tests.jobs.containers", "tests.jobs.pods"]
SAMPLE_VARIABLE = "CHEXSCALE_NIH_SAMPLE"

# A folder's name with every printable ASCII character that a workspace may have, and some others.
ODD = " !\"$%&'()*+,-.:;<=>@_`{}~ äß日本😀"

# A JVM of a test lives for seconds or minutes, in which its second compiler costs more than it saves.
os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

# A busy machine must not fail a test.
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")


TOGETHER = ("tests/etl/", "tests/inference/")
"""folders whose files run one by one, because they share a Spark session, or trained models and a service"""
SLOW = 30
"""how many other tests a test that runs whole commands takes as long as"""


def scope_of(nodeid: str) -> str:
    """The tests that one process runs, one after another: those of a file, or of a folder of TOGETHER."""
    file = nodeid.partition("::")[0]
    return next((folder for folder in TOGETHER if file.startswith(folder)), file)


class Files(LoadScopeScheduling):
    """With `-n 2` test files run side by side, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log):
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begins with the longest files, so that at the end no process waits for another one."""
    if hasattr(config, "workerinput"):
        length = Counter()
        for item in items:
            length[scope_of(item.nodeid)] += SLOW if item.get_closest_marker("slow") else 1
        items.sort(key=lambda item: (-length[scope_of(item.nodeid)], scope_of(item.nodeid)))


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collecting imports every library."""
    with quick_imports():
        return (yield)


def pytest_xdist_make_scheduler(config: pytest.Config, log) -> Files:
    return Files(config, log)


@pytest.fixture(scope="session")
def spark():
    from etl.cluster.workers import obtain_spark

    session, end = obtain_spark()
    # The default of 50 takes longer than reading the log of a small table.
    session.conf.set("spark.databricks.delta.snapshotPartitions", 2)
    yield session
    end()


class InlineWorkers:
    """Does the work of SparkWorkers item by item in this process, for tests of the work itself."""

    def map(self, function, items, images, title) -> list:
        assert len(items) == len(images)
        return [function(item) for item in items]


class NoWorkers:
    """Stands for workers where nothing is to be done."""

    def map(self, function, items, *_) -> list:
        assert not items, "there is nothing to do"
        return []


def files_of(workspace, version: int) -> set[str]:
    """The shard files of a version of the table."""
    from etl.contract.schema import SPLITS
    from etl.contract.table import snapshot_files

    return {file for split in SPLITS for file in snapshot_files(workspace.shards, version, split)}


@pytest.fixture(scope="session")
def nih_sample() -> Path:
    """Real ChestX-ray14 files; the test is skipped if the variable does not name them."""
    folder = os.environ.get(SAMPLE_VARIABLE)
    if not folder:
        pytest.skip(f"{SAMPLE_VARIABLE} does not name a folder with real ChestX-ray14 files")
    return Path(folder)


class NihFolder:
    """A small folder in NIH's layout: patients 1..num_patients with two images each, every fourth patient on the test
    list, odd patients with an Effusion in their second image."""

    def __init__(self, root: Path, num_patients: int = 24, size_px: int = 64):
        self.root = root
        self.rows: list[list[str]] = []
        (root / "images").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for patient in range(1, num_patients + 1):
            for follow_up in range(2):
                name = f"{patient:08d}_{follow_up:03d}.png"
                finding = "Effusion|Mass" if patient % 2 and follow_up else "No Finding"
                sex = "F" if patient % 3 else "M"
                self.rows.append([name, finding, str(follow_up), str(patient), "58", sex, "PA", "64", "64", "1", "1"])
                self.put(name, png(rng.integers(0, 256, (size_px, size_px), dtype=np.uint8)))
        self.test = [row[0] for row in self.rows if int(row[3]) % 4 == 0]
        self.train_val = [row[0] for row in self.rows if int(row[3]) % 4]
        self.write_lists()

    def put(self, name: str, content: bytes) -> None:
        (self.root / "images" / name).write_bytes(content)

    def write_lists(self) -> None:
        with (self.root / "Data_Entry_2017_v2020.csv").open("w", newline="") as file:
            file.write(LABEL_HEADER + "\n")
            csv.writer(file, lineterminator="\n").writerows(self.rows)
        (self.root / "train_val_list.txt").write_text("\n".join(self.train_val))
        (self.root / "test_list.txt").write_text("\n".join(self.test))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture
def nih_folder(tmp_path) -> NihFolder:
    return NihFolder(tmp_path / "nih")


SIZE_PX = 32


def make_card(findings: list[str], positives: list[int], known: list[int], images: dict | None = None, **changes):
    """A card with the same counts in every split, enough for training."""
    from etl.contract.schema import CONTRACT, SPLITS, Card, image_column

    column = image_column(SIZE_PX)
    images = images or dict.fromkeys(SPLITS, 8)
    fields = {
        "contract": CONTRACT,
        "table": "",
        "channels": 1,
        "delta_table_id": "table",
        "delta_version": 0,
        "quarantine_version": 0,
        "findings": findings,
        "sizes_px": [SIZE_PX],
        "images": images,
        "patients": images,
        "percentages": {},
        "positives": {split: dict(zip(findings, positives, strict=True)) for split in SPLITS},
        "known": {split: dict(zip(findings, known, strict=True)) for split in SPLITS},
        "pixel_mean": {column: 127.0},
        "pixel_std": {column: 70.0},
        "images_listed": sum(images.values()),
        "images_absent": 0,
        "images_unlisted": 0,
        "images_quarantined": 0,
        "identities": "",
        "source": "made in memory",
        "source_sha256": {},
        "settings": {"format": "csv", "split": "hashed"},
    }
    return Card(**{**fields, **changes})


def make_checkpoint(**parts):
    """A fresh simple_cnn with three findings, as a training would save it, with these parts."""
    from training.network.build import build_model
    from training.network.checkpoint import Checkpoint

    network = {"model": "simple_cnn", "findings": ["A", "B", "C"], "size_px": SIZE_PX, "channels": 1, "tabular": False}
    network |= {"pixel_mean": 127.0, "pixel_std": 70.0, "exclusive": False}
    network["weights"] = build_model("simple_cnn", 3, 127, 70).state_dict()
    story = {"epoch": 1, "val_auroc": 0.5, "run_id": "none", "commit": "unknown", "settings": {}}
    return Checkpoint(**{**network, **story, "delta_table_id": "table", "delta_version": 0, **parts})


@pytest.fixture(scope="session")
def new_store(tmp_path_factory):
    """Returns a function that puts an empty MLflow database into a workspace; making one in each test takes seconds."""
    from conf.workspace import Workspace
    from training.record.store import mlflow, use_store

    made = Workspace.at(str(tmp_path_factory.mktemp("store")))
    use_store(made, make=True)
    mlflow.search_experiments()

    def put(workspace) -> None:
        workspace.root.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.tracking_db, workspace.tracking_db)

    return put


@pytest.fixture(scope="session")
def copied_table(small_table, new_store):
    """Returns a function that makes a workspace with the small table in a folder, as the ETL leaves it."""
    from conf.workspace import Workspace

    def copy(folder: Path):
        workspace = Workspace.at(str(shutil.copytree(small_table[0].root, folder)))
        new_store(workspace)
        return workspace

    return copy


@pytest.fixture(scope="session")
def small_table(tmp_path_factory):
    """A Delta table with 53, 9 and 11 rows in row groups of 5: (workspace, card, image_id -> what was written)."""
    return write_small_table(tmp_path_factory.mktemp("small table"), rows_per_row_group=5)


def write_small_table(folder: Path, rows_per_row_group: int):
    import pyarrow as pa
    from deltalake import WriterProperties, write_deltalake

    from conf.workspace import Workspace

    workspace = Workspace.at(str(folder))
    rng, rows = np.random.default_rng(0), {}
    images = {"train": 53, "val": 9, "test": 11}
    for split, number in images.items():
        for index in range(number):
            findings = rng.integers(0, 2, 2).astype(np.float32)
            findings[rng.random(2) < 0.3] = np.nan
            # The first finding can be learned: its images are bright.
            pixels = rng.integers(0, 120 + 120 * int(findings[0] == 1), (SIZE_PX, SIZE_PX), dtype=np.uint8)
            name = f"{split}_{index:03}.png"
            rows[name] = {"split": split, "findings": findings, "pixels": pixels.tobytes(), "patient_id": name[:-5]}
    lungs = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    lungs[SIZE_PX // 2 :, SIZE_PX // 2 :] = 255
    lungs = lungs.tobytes()
    columns = {
        "image_id": list(rows),
        "patient_id": [row["patient_id"] for row in rows.values()],
        "age_years": pa.array([float(20 + index) for index in range(len(rows))], pa.float32()),
        "sex": ["F" if index % 2 else None for index in range(len(rows))],
        "view": ["PA"] * len(rows),
        "findings": pa.array([row["findings"] for row in rows.values()], pa.list_(pa.float32())),
        # Bright films are bright all over; their boxes lie in the left upper corner.
        "boxes": pa.array(
            [[0, 0, 0, 0.25, 0.25] if row["findings"][0] == 1 else [] for row in rows.values()], pa.list_(pa.float32())
        ),
        "split": [row["split"] for row in rows.values()],
        f"image_{SIZE_PX}": pa.array([row["pixels"] for row in rows.values()], pa.binary()),
        # Two films of three have lungs, in the right lower quarter.
        f"mask_{SIZE_PX}": pa.array([lungs if place % 3 else None for place in range(len(rows))], pa.binary()),
    }
    properties = WriterProperties(max_row_group_size=rows_per_row_group)
    write_deltalake(workspace.shards, pa.table(columns), partition_by=["split"], writer_properties=properties)
    known = [sum(not np.isnan(row["findings"][f]) for row in rows.values()) for f in range(2)]
    positives = [sum(row["findings"][f] == 1 for row in rows.values()) for f in range(2)]
    card = make_card(["Bright", "Coin"], [int(p) for p in positives], [int(k) for k in known], images)
    card.write(workspace.card)
    return workspace, card, rows


@pytest.fixture(scope="module")
def undrawn():
    """Trainings and evaluations with empty figures, which otherwise take seconds each."""

    def touch(path: Path, *_) -> None:
        path.parent.mkdir(exist_ok=True)
        path.touch()

    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_curves", "draw_reliability", "draw_subgroups"):
            patch.setattr(f"training.record.evaluation.{name}", touch)
        for name in ("draw_roc", "draw_history"):
            patch.setattr(f"training.record.record.{name}", touch)
        yield patch
