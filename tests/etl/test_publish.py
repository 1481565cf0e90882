"""The stage as a whole in the suite's Spark session: manifest in, tables and card out."""

import json

import cv2
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaTable as SparkTable
from deltalake import DeltaTable

from conf.errors import InputError
from conf.settings import Etl, Settings
from conf.workspace import Workspace
from etl import publish as stage
from etl.publish import check_images, publish
from etl.schema import SPLITS, Card
from etl.sources import read_manifest
from etl.table import snapshot_files
from tests.conftest import png

pytestmark = pytest.mark.spark


def run(spark, folder, workspace: Workspace, **etl) -> Card:
    etl = Etl(**{"sizes_px": [32, 64], "val_fraction": 0.3, "rows_per_row_group": 5, "rows_per_file": 11, **etl})
    manifest = read_manifest(folder.root, etl)
    publish(spark, Settings(etl=etl), workspace, folder.root, manifest)
    return Card.read(workspace.card)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def test_the_table_holds_every_image_once_with_its_pixels(spark, nih_folder, workspace):
    card = run(spark, nih_folder, workspace)
    seen, mean = [], []
    for split in ("train", "val", "test"):
        rows = ds.dataset(snapshot_files(workspace.shards, 0, split)).to_table()
        assert len(rows) == card.images[split]
        for row in rows.to_pylist():
            original = cv2.imread(str(nih_folder.root / "images" / row["image_id"]), cv2.IMREAD_GRAYSCALE)
            assert row["image_64"] == original.tobytes()
            assert len(row["image_32"]) == 32 * 32
            assert (row["image_id"] in nih_folder.test) == (split == "test")
            assert row["findings"][2] == (int(row["patient_id"]) % 2 and row["follow_up"])
            seen.append(row["image_id"])
            if split == "train":
                mean.append(original)
    assert sorted(seen) == sorted(row[0] for row in nih_folder.rows)
    assert card.pixel_mean["image_64"] == pytest.approx(np.mean(mean), rel=1e-6)
    assert card.pixel_std["image_64"] == pytest.approx(np.std(mean), rel=1e-4)
    assert card.positives["test"]["Effusion"] == 0
    assert sum(card.positives[split]["Effusion"] for split in ("train", "val")) == 12


def test_row_groups_have_the_set_number_of_rows_and_rows_are_shuffled(spark, nih_folder, workspace):
    run(spark, nih_folder, workspace, rows_per_row_group=4, rows_per_file=20)
    order = []
    for path in snapshot_files(workspace.shards, 0, "train"):
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        assert set(groups[:-1]) <= {4}
        assert 1 <= groups[-1] <= 4
        order += file.read(["image_id"]).column(0).to_pylist()
    assert order != sorted(order)


def test_bad_images_are_quarantined_with_their_reasons_and_the_rest_goes_on(spark, nih_folder, workspace):
    good = (nih_folder.root / "images" / "00000001_000.png").read_bytes()
    nih_folder.put("00000001_000.png", good[: len(good) // 2])
    nih_folder.put("00000001_001.png", b"")
    nih_folder.put("00000002_000.png", b"Dear colleague, the image follows by post.")
    nih_folder.put("00000002_001.png", png(np.full((64, 64), 40_000, np.uint16)))
    nih_folder.train_val.remove("00000003_000.png")
    nih_folder.put("00000005_000.png", png(np.zeros((1, 20_000), np.uint8)))
    nih_folder.write_lists()
    card = run(spark, nih_folder, workspace, max_quarantined_fraction=0.2)
    rows = DeltaTable(workspace.quarantine, version=card.quarantine_version).to_pandas()
    reasons = rows.set_index("image_id").reason
    assert set(reasons.index) == {f"0000000{name}.png" for name in ("1_000", "1_001", "2_000", "3_000", "5_000")}
    assert "truncated" in reasons["00000001_000.png"]
    assert reasons["00000001_001.png"] == "empty file"
    assert "no PNG, JPEG or TIFF" in reasons["00000002_000.png"]
    assert reasons["00000003_000.png"] == "in no split"
    assert "too large" in reasons["00000005_000.png"]
    assert sum(card.images.values()) + card.images_quarantined == 48


def test_too_many_bad_images_leave_the_old_version(spark, nih_folder, workspace):
    before = run(spark, nih_folder, workspace)
    for row in nih_folder.rows[:10]:
        nih_folder.put(row[0], b"")
    with pytest.raises(InputError, match=r"10 of 48 images are bad.*empty file"):
        run(spark, nih_folder, workspace)
    assert Card.read(workspace.card) == before
    newest = DeltaTable(workspace.shards)
    assert sorted(newest.file_uris()) == sorted(DeltaTable(workspace.shards, version=before.delta_version).file_uris())


@pytest.mark.parametrize(
    ("written", "bad", "fault"),
    [
        (["a", "b"], [], r"lost: \['c'\], .*: \[\]"),
        (["a", "b", "c", "c"], [], r"lost: \[\], .*: \['c'\]"),
        (["a", "b", "b"], [], r"lost: \['c'\], .*: \['b'\]"),
        (["a", "b", "c"], ["c"], r"lost: \[\], .*: \['c'\]"),
        (["a", "b", "d"], ["c"], r"lost: \[\], .*: \['d'\]"),
    ],
)
def test_every_image_is_once_in_the_table_or_in_quarantine(written, bad, fault):
    images, bad = pd.Series(["a", "b", "c"]), pd.DataFrame({"image_id": bad, "reason": "cut"})
    check_images(images, pd.Series(["c", "a"]), pd.DataFrame({"image_id": ["b"], "reason": ["cut"]}), 1)
    with pytest.raises(AssertionError, match=fault):
        check_images(images, pd.Series(written), bad, 1)


def test_every_failure_after_the_write_leaves_the_old_version(spark, nih_folder, workspace, monkeypatch):
    write_shards = stage.write_shards

    def write_one_row_for_another(spark, manifest, table, etl):
        observed = write_shards(spark, manifest, table, etl)
        written = SparkTable.forPath(spark, str(table))
        written.update("image_id = '00000001_001.png'", {"image_id": "'00000001_000.png'"})
        return observed

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(stage, "write_shards", write_one_row_for_another)
    with pytest.raises(AssertionError, match="lost"):
        run(spark, nih_folder, workspace)
    assert not workspace.card.exists()
    monkeypatch.setattr(stage, "write_shards", write_shards)
    before = run(spark, nih_folder, workspace)
    old = sorted(snapshot_files(workspace.shards, before.delta_version, "train"))
    faults = [("write_shards", write_one_row_for_another, AssertionError), ("write_quarantine", fail, OSError)]
    for name, fault, error in faults:
        with monkeypatch.context() as patch, pytest.raises(error):
            patch.setattr(stage, name, fault)
            run(spark, nih_folder, workspace)
        assert Card.read(workspace.card) == before
        newest = DeltaTable(workspace.shards).version()
        assert newest > before.delta_version
        assert snapshot_files(workspace.shards, newest, "train") == old


def test_unknown_findings_are_nan_and_unknown_scalars_null(spark, nih_folder, workspace):
    nih_folder.rows[0][2], nih_folder.rows[0][4:7] = "", ["", "", ""]
    nih_folder.write_lists()
    etl = Etl(sizes_px=[32], val_fraction=0.3)
    manifest = read_manifest(nih_folder.root, etl)
    manifest.images.findings[0][:] = [np.nan, 0, 1] + [np.nan] * 11
    publish(spark, Settings(etl=etl), workspace, nih_folder.root, manifest)
    files = [file for split in SPLITS for file in snapshot_files(workspace.shards, 0, split)]
    rows = ds.dataset(files).to_table(filter=ds.field("image_id") == "00000001_000.png")
    (row,) = rows.to_pylist()
    assert [row[name] for name in ("follow_up", "age_years", "sex", "view")] == [None] * 4
    assert rows["findings"].combine_chunks().flatten().null_count == 0
    np.testing.assert_array_equal(row["findings"], manifest.images.findings[0])
    card = Card.read(workspace.card)
    assert [sum(card.known[split][name] for split in card.known) for name in ("Atelectasis", "Effusion")] == [47, 48]


def test_a_second_run_makes_the_next_version_and_the_first_stays_readable(spark, nih_folder, workspace):
    first = run(spark, nih_folder, workspace)
    second = run(spark, nih_folder, workspace, sizes_px=[48])
    assert (first.delta_version, second.delta_version) == (0, 1)
    assert second.sizes_px == [48]
    old = snapshot_files(workspace.shards, 0, "test")
    columns = set(pq.ParquetFile(old[0]).schema_arrow.names)
    assert {"image_32", "image_64"} < columns
    assert "image_48" not in columns


def test_an_empty_split_is_refused(spark, nih_folder, workspace):
    nih_folder.train_val += nih_folder.test
    nih_folder.test = []
    nih_folder.write_lists()
    with pytest.raises(InputError, match="the test split has no images"):
        run(spark, nih_folder, workspace)
    assert not workspace.card.exists()


def test_the_real_sample(spark, nih_sample, workspace):
    etl = Etl(rows_per_row_group=16)
    publish(spark, Settings(etl=etl), workspace, nih_sample, read_manifest(nih_sample, etl))
    card = Card.read(workspace.card)
    assert sum(card.images.values()) == 241
    assert card.images_quarantined == 0
    assert json.loads(workspace.card.read_text())["images"]["test"] == 71
