"""The stage as a whole, from the manifest to tables and card; without Spark, except in the tests marked so."""

import hashlib
import json
import os

import cv2
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from conf.errors import InputError
from conf.settings import Etl, Quality
from conf.workspace import Workspace
from etl.cluster.workers import SparkWorkers
from etl.contract.schema import SPLITS, Card
from etl.contract.table import read_card, snapshot_files
from etl.phantoms.generate import BOX_HEADER
from etl.sources.read import read_manifest
from etl.writing import publish as stage
from etl.writing.accounts import check_images, find_duplicates
from etl.writing.publish import publish
from tests.conftest import InlineWorkers, png
from tests.etl.tables import SMALL, rows_of, run


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def test_the_table_holds_every_image_once_with_its_pixels(nih_folder, workspace):
    card = run(nih_folder, workspace).card
    rows = rows_of(workspace, card)
    assert sorted(rows.index) == sorted(row[0] for row in nih_folder.rows)
    films = {}
    for image_id, row in rows.iterrows():
        film = cv2.imread(str(nih_folder.root / "images" / image_id), cv2.IMREAD_GRAYSCALE)
        assert row["image_64"] == film.tobytes()
        assert len(row["image_32"]) == 32 * 32
        assert row["mean_64"] == pytest.approx(film.mean())
        assert row["std_64"] == pytest.approx(film.std(), rel=1e-5)
        assert row["pixel_hash"] == hashlib.sha256(film.tobytes()).hexdigest()[:32]
        assert (image_id in nih_folder.test) == (row["split"] == "test")
        assert row["findings"][2] == (int(row["patient_id"]) % 2 and row["follow_up"])
        if row["split"] == "train":
            films[image_id] = film
    train = np.stack(list(films.values()))
    assert card.pixel_mean["image_64"] == pytest.approx(train.mean(), rel=1e-6)
    assert card.pixel_std["image_64"] == pytest.approx(train.std(), rel=1e-5)
    assert card.images == rows.split.value_counts().to_dict()
    assert card.positives["test"]["Effusion"] == 0
    assert sum(card.positives[split]["Effusion"] for split in ("train", "val")) == 12


def test_boxes_are_shares_of_the_side(nih_folder, workspace):
    lines = ["00000001_000.png,Infiltrate,256.0,512,128,64,,,", "00000001_000.png,Mass|Nodule,0,0,1024,1024"]
    (nih_folder.root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *lines]))
    boxes = rows_of(workspace, run(nih_folder, workspace).card).boxes
    expected = [3, 0.25, 0.5, 0.125, 0.0625, 4, 0, 0, 1, 1, 5, 0, 0, 1, 1]
    np.testing.assert_array_equal(boxes["00000001_000.png"], np.float32(expected))
    assert len(boxes["00000002_000.png"]) == 0


@pytest.mark.parametrize(
    "line",
    ["a.png,Mass,1,2,3", "a.png,Mess,1,2,3,4", "a.png,Mass,1,2,0,4", "a.png,Mass,1,2,3,2000", "a.png", "?"],
)
def test_a_broken_box_is_named_with_its_line(nih_folder, line):
    (nih_folder.root / "BBox_List_2017.csv").write_text(f"{BOX_HEADER}\n{line}\n")
    with pytest.raises(InputError, match=r"BBox_List_2017.csv line 2: .*fix the row"):
        read_manifest(nih_folder.root, Etl())


def test_row_groups_have_the_set_number_of_rows_and_rows_are_shuffled(nih_folder, workspace):
    run(nih_folder, workspace, rows_per_row_group=4, rows_per_file=20)
    order = []
    for path in snapshot_files(workspace.shards, 0, "train"):
        file = pq.ParquetFile(path)
        groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
        assert set(groups[:-1]) <= {4}
        assert 1 <= groups[-1] <= 4
        order += file.read(["image_id"]).column(0).to_pylist()
    assert order != sorted(order)


def test_another_run_gives_readers_the_same_order(nih_folder, workspace, tmp_path):
    orders = []
    for place in (workspace, Workspace.at(str(tmp_path / "other"))):
        run(nih_folder, place)
        for split in SPLITS:
            files = snapshot_files(place.shards, 0, split)
            orders.append([name for file in files for name in pq.read_table(file, columns=["image_id"])[0].to_pylist()])
    assert len(snapshot_files(workspace.shards, 0, "train")) > 1
    assert orders[:3] == orders[3:]


def test_a_fitting_size_is_not_resampled_and_squares_are_as_set(nih_folder, workspace):
    nih_folder.put("00000001_000.png", png(np.full((64, 32), 200, np.uint8)))
    padded = rows_of(workspace, run(nih_folder, workspace, sizes_px=[64]).card).loc["00000001_000.png"]
    stretched = rows_of(workspace, run(nih_folder, workspace, sizes_px=[64], square="stretch").card)
    assert padded.mean_64 == pytest.approx(100)
    assert stretched.loc["00000001_000.png"].mean_64 == pytest.approx(200)


def test_bad_images_are_quarantined_with_their_reasons_and_the_rest_is_stored(nih_folder, workspace):
    good = (nih_folder.root / "images" / "00000001_000.png").read_bytes()
    nih_folder.put("00000001_000.png", good[: len(good) // 2])
    nih_folder.put("00000001_001.png", b"")
    nih_folder.put("00000002_000.png", b"Dear colleague, the image follows by post.")
    nih_folder.put("00000002_001.png", png(np.full((64, 64), 40_000, np.uint16)))
    nih_folder.train_val.remove("00000003_000.png")
    nih_folder.put("00000005_000.png", png(np.zeros((1, 20_000), np.uint8)))
    (nih_folder.root / "images" / "00000006_000.png").unlink()
    (nih_folder.root / "images" / "00000006_000.png").symlink_to("nowhere.png")
    (nih_folder.root / "images" / "00000007_000.png").unlink()
    os.mkfifo(nih_folder.root / "images" / "00000007_000.png")
    nih_folder.write_lists()
    outcome = run(nih_folder, workspace, max_quarantined_fraction=0.2)
    rows = DeltaTable(workspace.quarantine, version=outcome.card.quarantine_version).to_pandas()
    reasons = rows.set_index("image_id").reason
    names = ("1_000", "1_001", "2_000", "3_000", "5_000", "6_000", "7_000")
    assert set(reasons.index) == {f"0000000{name}.png" for name in names}
    assert "truncated" in reasons["00000001_000.png"]
    assert reasons["00000001_001.png"] == "empty file"
    assert "starts with b'Dear col'" in reasons["00000002_000.png"]
    assert reasons["00000003_000.png"] == "in no split"
    assert "too large" in reasons["00000005_000.png"]
    assert "No such file" in reasons["00000006_000.png"]
    assert reasons["00000007_000.png"] == "cannot be read: no ordinary file"
    assert sum(outcome.card.images.values()) + outcome.card.images_quarantined == 48


def test_too_many_bad_images_leave_the_old_version(nih_folder, workspace):
    before = run(nih_folder, workspace).card
    for row in nih_folder.rows[:10]:
        nih_folder.put(row[0], b"")
    with pytest.raises(
        InputError,
        match=r"10 of 48 images are bad.*: empty file 10 \(such as 00000001_000.png\)\. Nothing was committed",
    ):
        run(nih_folder, workspace)
    assert read_card(workspace.tables("")[0]) == before


def test_images_left_out_on_purpose_are_not_too_many(nih_folder, workspace, tmp_path):
    (tmp_path / "poor images.csv").write_text("\n".join(row[0] + ",rotated" for row in nih_folder.rows[:8]))
    nih_folder.rows[8][6], nih_folder.rows[9][6] = "AP", ""
    nih_folder.write_lists()
    outcome = run(nih_folder, workspace, exclude=[str(tmp_path / "poor images.csv")], views=["PA"])
    assert outcome.quarantine.reason.value_counts().to_dict() == {
        "listed in poor images.csv": 8,
        "view AP, not in etl.views": 1,
        "view unknown, not in etl.views": 1,
    }
    assert len(outcome.rows) == 38


def test_lists_of_images_to_leave_out_may_be_tables_and_must_name_one(nih_folder, workspace, tmp_path):
    path = tmp_path / "poor.csv"
    path.write_text('\n"00000001_000.png",x\n\n,foo\n00000002_000.png rotated\n00000003_000.png\n')
    outcome = run(nih_folder, workspace, exclude=[str(path)])
    assert outcome.quarantine.image_id.tolist() == [f"0000000{n}_000.png" for n in (1, 2, 3)]
    assert outcome.card.source_sha256["poor.csv"] == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text("images/00000001_000.png\n")
    with pytest.raises(InputError, match=r"none of the 1 lines of .*poor.csv, such as 'images/00000001_000.png'"):
        run(nih_folder, workspace, exclude=[str(path)])


def test_a_list_may_name_absent_images_only(nih_folder, workspace, tmp_path):
    for name in ("00000005_000.png", "00000006_000.png"):
        (nih_folder.root / "images" / name).unlink()
    (tmp_path / "rotated.csv").write_text("00000005_000.png\n00000006_000.png\n")
    card = run(nih_folder, workspace, exclude=[str(tmp_path / "rotated.csv")]).card
    assert (card.images_absent, card.images_quarantined) == (2, 0)


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
    def quarantine(names):
        return pd.DataFrame({"image_id": names, "reason": "cut", "file_version": "1:1"})

    images = pd.Series(["a", "b", "c"])
    check_images(images, pd.Series(["c", "a"]), quarantine(["b"]), 1)
    with pytest.raises(AssertionError, match=fault):
        check_images(images, pd.Series(written), quarantine(bad), 1)


def test_every_failure_before_the_commit_leaves_the_old_version(nih_folder, workspace, monkeypatch):
    write_shard = stage.write_shard

    def lose_a_row(shard, **rest):
        return write_shard(stage.replace(shard, rows=shard.rows.iloc[1:]), **rest)

    def fail(*_, **__):
        raise OSError("No space left on device")

    faults = [("write_shard", lose_a_row, AssertionError), ("write_shard", fail, OSError)]
    faults += [("write_quarantine", fail, OSError), ("commit", fail, OSError)]

    def on_disk():
        return set(workspace.shards.glob("split=*/*"))

    for first_run in (True, False):
        before = None if first_run else run(nih_folder, workspace).card
        for name, fault, error in faults:
            there = on_disk()
            with monkeypatch.context() as patch, pytest.raises(error):
                patch.setattr(stage, name, fault)
                run(nih_folder, workspace, seed=1)
            # A commit may take effect before it fails, so its files are left to the housekeeping.
            assert on_disk() == there or name == "commit"
            assert read_card(str(workspace.shards)) == before
            assert first_run or len(rows_of(workspace, before)) == 48


def test_unknown_findings_are_nan_and_unknown_scalars_null(nih_folder, workspace):
    nih_folder.rows[0][2], nih_folder.rows[0][4:7] = "", ["", "", ""]
    nih_folder.write_lists()
    settings = Etl(**SMALL)
    manifest = read_manifest(nih_folder.root, settings)
    manifest.images.findings[0][:] = [np.nan, 0, 1] + [np.nan] * 11
    card = publish(workspace.tables(""), settings, "source", manifest, InlineWorkers()).card
    files = [file for split in SPLITS for file in snapshot_files(workspace.shards, 0, split)]
    rows = ds.dataset(files).to_table(filter=ds.field("image_id") == "00000001_000.png")
    (row,) = rows.to_pylist()
    assert [row[name] for name in ("follow_up", "age_years", "sex", "view")] == [None] * 4
    assert rows["findings"].combine_chunks().flatten().null_count == 0
    np.testing.assert_array_equal(row["findings"], manifest.images.findings[0])
    assert [sum(card.known[split][name] for split in card.known) for name in ("Atelectasis", "Effusion")] == [47, 48]


def test_the_commit_carries_the_card_its_hash_and_the_settings(nih_folder, workspace):
    card = run(nih_folder, workspace).card
    card.write(workspace.card)
    commit = DeltaTable(workspace.shards).history(1)[0]
    assert commit["userMetadata"] == workspace.card.read_text()
    assert commit["card_sha256"] == hashlib.sha256(workspace.card.read_bytes()).hexdigest()
    assert json.loads(commit["settings"]) == card.settings
    assert Card.read(workspace.card) == read_card(workspace.tables("")[0]) == card


def test_an_empty_split_is_refused(nih_folder, workspace):
    nih_folder.train_val += nih_folder.test
    nih_folder.test = []
    nih_folder.write_lists()
    with pytest.raises(InputError, match="the test split has no images"):
        run(nih_folder, workspace)
    assert read_card(workspace.tables("")[0]) is None


PIXELS = pd.DataFrame(
    {
        "image_id": ["b", "a", "c", "d", "e", "f"],
        "patient_id": ["1", "1", "2", "2", "3", "2"],
        "pixel_hash": ["x", "x", "x", "y", "z", "x"],
    }
)


@pytest.mark.parametrize(
    ("quality", "there", "copies"),
    [
        (Quality(), set(), {"b": "a", "c": "a", "f": "c"}),
        (Quality(), {"b"}, {"a": "b", "c": "b", "f": "c"}),
        (Quality(duplicates=False), set(), {"c": "a", "f": "a"}),
        (Quality(duplicates_across_patients=False), set(), {"b": "a", "f": "c"}),
        (Quality(duplicates_across_patients=False), {"f"}, {"b": "a", "c": "f"}),
        (Quality(duplicates=False, duplicates_across_patients=False), set(), {}),
    ],
)
def test_the_first_of_equal_images_stays(quality, there, copies):
    found = find_duplicates(PIXELS, there, Etl(quality=quality))
    assert dict(zip(found.image_id, found.same_as, strict=True)) == copies


def test_copies_of_an_image_are_quarantined(nih_folder, workspace):
    same = (nih_folder.root / "images" / "00000001_000.png").read_bytes()
    for name in ("00000001_001.png", "00000004_000.png"):
        nih_folder.put(name, same)
    outcome = run(nih_folder, workspace)
    assert outcome.quarantine.set_index("image_id").reason.to_dict() == {
        "00000001_001.png": "duplicate: same pixels as 00000001_000.png of the same patient",
        "00000004_000.png": "duplicate: same pixels as 00000001_000.png of another patient",
    }
    rows = rows_of(workspace, outcome.card)
    assert len(rows) == 46
    assert rows.pixel_hash.is_unique
    # No file without a version is left behind.
    written = {str(file) for file in workspace.shards.rglob("*.parquet")}
    assert written == {file for split in SPLITS for file in snapshot_files(workspace.shards, 0, split)}


def test_a_folder_of_classes_is_stored_in_colour(tmp_path, workspace):
    rng = np.random.default_rng(0)
    films = {}
    for index in range(30):
        name = f"{'rose' if index % 3 else 'daisy'}/{index}, große.jpg"
        films[name] = np.full((40, 40, 3), rng.integers(0, 256, 3), np.uint8)
        (tmp_path / "flowers" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "flowers" / name), films[name][..., ::-1])
    settings = Etl(format="classes", **{**SMALL, "val_fraction": 0.5, "test_fraction": 0.3})
    manifest = read_manifest(tmp_path / "flowers", settings)
    card = publish(workspace.tables(""), settings, "flowers", manifest, InlineWorkers()).card
    assert (card.channels, card.findings) == (3, ["daisy", "rose"])
    rows = rows_of(workspace, card)
    assert len(rows) == 30
    for name, film in films.items():
        row = rows.loc[name]
        pixels = np.frombuffer(row.image_32, np.uint8).reshape(32, 32, 3)
        np.testing.assert_allclose(pixels.mean((0, 1)), film.mean((0, 1)), atol=3)
        assert row.findings.tolist() == ([0, 1] if name.startswith("rose") else [1, 0])


@pytest.mark.spark
def test_spark_writes_the_same_table_and_reads_it(spark, nih_folder, workspace, tmp_path):
    card = run(nih_folder, workspace, SparkWorkers()).card
    other = Workspace.at(str(tmp_path / "other"))
    expected = rows_of(other, run(nih_folder, other).card)
    pd.testing.assert_frame_equal(rows_of(workspace, card), expected)
    read = spark.read.format("delta").option("versionAsOf", 0).load(str(workspace.shards)).toPandas()
    read = read.set_index("image_id").sort_index()[expected.columns]
    assert read.pixel_hash.equals(expected.pixel_hash)
    assert read.findings.map(list).tolist() == expected.findings.map(list).tolist()
    assert read.image_64.map(bytes).tolist() == expected.image_64.tolist()
    history = spark.sql(f"describe history delta.`{workspace.shards}`").collect()
    assert Card.parse(history[0].userMetadata, "history") == card


@pytest.mark.spark
def test_a_worker_that_cannot_write_ends_with_a_message(spark, nih_folder, workspace):
    workspace.root.mkdir()
    workspace.shards.write_text("in the way")
    with pytest.raises(
        InputError, match=r"a worker cannot continue .*nothing was committed; check permissions and free space"
    ):
        SparkWorkers().map(os.stat, [str(workspace.shards / "file")], [1], "test")


@pytest.mark.spark
def test_the_real_sample(spark, nih_sample, workspace):
    settings = Etl(rows_per_row_group=16)
    manifest = read_manifest(nih_sample, settings)
    outcome = publish(workspace.tables(""), settings, str(nih_sample), manifest, SparkWorkers())
    assert sum(outcome.card.images.values()) == 238
    assert outcome.quarantine.reason.str.partition(":")[0].tolist() == ["too small"] * 3
    assert (outcome.rows.boxes.map(len) > 0).sum() > 30
