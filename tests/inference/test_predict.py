"""Batch scoring, without Spark but for the command itself (tests/etl/cluster/test_workers.py tests map_in_arrow)."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import s3fs
from deltalake import DeltaTable, write_deltalake
from PIL import Image

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.delta import KEEP_HISTORY
from etl.contract.row_groups import footer_of
from etl.contract.schema import Card
from inference.batch import scores
from inference.batch.listing import Listing, list_images
from inference.batch.run import BatchOutcome, score_new, sha256_of, show
from inference.batch.scores import Run, append_scores
from inference.batch.scoring import LATER, OUT_OF_REACH, answer_schema, read_images
from inference.files.overlays import write_overlay
from inference.film.answers import describe_findings
from inference.film.films import load_film
from inference.model.graphs import open_graph, properties_of, save_graph, with_properties
from inference.model.model_files import ModelFiles, find_model
from inference.model.packing import write_package
from inference.model.served_model import ServedModel
from inference.model.variants import open_variant
from tests.etl.dicom_files import build, written
from tests.inference.conftest import FINDINGS, REPOSITORY, ROWS, SIZE_PX, register_champion

BATCH_SIZE = 16
# Java's options: for a program that lives for seconds.
SPARK_SUBMIT = ["spark-submit", "--master", "local[2]", "--driver-java-options", "-XX:TieredStopAtLevel=1"]


def map_in_arrow(function, rows, schema, rows_per_task, title) -> pa.Table:
    """As SparkWorkers', in this process."""
    parts = [rows.slice(start, rows_per_task) for start in range(0, len(rows), rows_per_task)]
    results = [batch for part in parts for batch in function(iter(part.combine_chunks().to_batches()), 1)]
    return pa.Table.from_batches(results, schema)


@pytest.fixture(scope="module")
def model(int8) -> ServedModel:
    predict, properties = open_variant("int8", int8, num_threads=1)
    return ServedModel(ModelFiles("chexscale", 1, int8.parent), "int8", properties, predict)


@pytest.fixture
def output(tmp_path) -> str:
    return str(tmp_path / "scores")


def score(model: ServedModel, source: str, workspace: Workspace, output: str) -> BatchOutcome:
    listing = list_images(source, workspace, model.properties)
    return score_new(model, listing, output, BATCH_SIZE, map_in_arrow)


def rows_in(output: str) -> list[dict]:
    files = DeltaTable(output).file_uris()
    return pa.concat_tables(map(pq.read_table, files), promote_options="default").to_pylist()


def test_a_table_s_images_get_the_model_s_answers(model, workspace, output):
    outcome = score(model, "", workspace, output)
    rows = {row["image_id"]: row for row in rows_in(output)}
    table = ds.dataset(workspace.shards, partitioning="hive").to_table().to_pylist()
    assert len(outcome.rows) == len(rows) == len(table) == sum(ROWS.values())
    assert outcome.version == 0
    for image in table[::7]:
        row = rows[image["image_id"]]
        pixels = np.frombuffer(image[f"image_{SIZE_PX}"], np.uint8).reshape(1, SIZE_PX, SIZE_PX)
        answer = model.predict(pixels)
        expected = describe_findings(model.properties, answer.probabilities[0], answer.distances[0])
        assert row["familiar"] == expected.familiar
        assert row["distance"] == pytest.approx(expected.distance, rel=1e-3)
        for finding in expected.findings:
            assert row[f"probability_{finding.name}"] == pytest.approx(finding.probability, abs=1e-4)
        if expected.familiar:
            assert row["called"] == [finding.name for finding in expected.findings if finding.present]
        assert row["image_version"] == image["pixel_hash"]
        lineage = [row[name] for name in ("model", "model_version", "mode", "source", "table_version")]
        assert lineage == ["chexscale", 1, "int8", "table", 0]
        assert row["fault"] is row["unreadable"] is None
    assert {bool(row["called"]) for row in rows.values()} == {True, False}


def test_a_model_that_answers_unsure_adds_columns_to_the_scores_of_others(model, workspace, output, tmp_path):
    score(model, "", workspace, output)
    unsure = {"error_rate": 0.1, "absent_below": [0.2, 0.1, None], "present_above": [0.6, 0.7, None]}
    properties = replace(model.properties, unsure=unsure)
    graph = with_properties(open_graph(model.folder / "int8", mapped=False), properties)
    save_graph(graph, tmp_path / "2" / "int8")
    other = replace(model, files=ModelFiles("chexscale", 2, tmp_path / "2"), properties=properties)
    outcome = score(other, "", workspace, output)
    show(outcome, other, 1.0)
    seen = set()
    for row in rows_in(output):
        if row["model_version"] == 1:
            assert row["present"] is row["unsure"] is row["error_rate"] is None
            continue
        assert row["error_rate"] == 0.1
        if not row["familiar"]:
            assert row["present"] is row["unsure"] is None
            continue
        for name, low, high in zip(FINDINGS, unsure["absent_below"], unsure["present_above"], strict=True):
            chance = row[f"probability_{name}"]
            answer = "present" if chance > (high or 1) else "absent" if chance < (low or 0) else "unsure"
            assert [word for word in ("present", "unsure") if name in row[word]] == [answer] * (answer != "absent")
            seen.add(answer)
    assert seen == {"present", "unsure", "absent"}
    assert score(other, "", workspace, output).version is None


def never(*_) -> pa.Table:
    pytest.fail("images were scored")


def numbered(model: ServedModel, version: int) -> ServedModel:
    return replace(model, files=replace(model.files, version=version))


def knowing(model: ServedModel, findings: list[str]) -> ServedModel:
    return replace(model, properties=replace(model.properties, findings=findings))


def test_a_model_of_an_older_release_whose_findings_give_one_column_is_refused_before_any_image(
    model, workspace, output
):
    listing = list_images("", workspace, model.properties)
    first, *others = FINDINGS
    twins = knowing(model, [first.upper(), first, *others[1:]])
    with pytest.raises(InputError, match=rf"'{first.upper()}' and '{first}' differ only by .*run the ETL again, train"):
        score_new(twins, listing, output, BATCH_SIZE, never)
    assert not Path(output).exists()


def test_scores_whose_columns_differ_from_the_model_s_by_case_are_refused_before_any_image(model, workspace, output):
    score(model, "", workspace, output)
    before = DeltaTable(output).version()
    listing = list_images("", workspace, model.properties)
    renamed = knowing(numbered(model, 2), [name.upper() for name in FINDINGS])
    with pytest.raises(
        InputError, match=rf"probability_{FINDINGS[0]}.*probability_{FINDINGS[0].upper()}.*another folder"
    ):
        score_new(renamed, listing, output, BATCH_SIZE, never)
    assert DeltaTable(output).version() == before


def test_scores_of_an_older_release_get_the_columns_that_they_lack(model, workspace, output, tmp_path):
    score(model, "", workspace, output)
    older, names = str(tmp_path / "older"), [name for name, _ in LATER]
    write_deltalake(older, pa.concat_tables(map(pq.read_table, DeltaTable(output).file_uris())).drop_columns(names))
    score(numbered(model, 2), "", workspace, older)
    rows = rows_in(older)
    assert len(rows) == 2 * sum(ROWS.values()) and {row["doubts"] for row in rows} == {None}
    assert set(names) <= {field.name for field in DeltaTable(older).schema().fields}


@pytest.mark.usefixtures("s3_server")
def test_films_and_scores_in_an_object_store(model, workspace, test_images, monkeypatch):
    # For deltalake alone: what the project itself opens needs no such permission.
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("films")
    store.pipe({f"films/set/{index}.png": image_file(image) for index, image in enumerate(test_images[:3])})
    store.pipe("films/set/cut.png", image_file(test_images[3])[:-40])
    outcome = score(model, "s3://films/set", workspace, "s3://films/scores")
    assert (len(outcome.rows), outcome.version) == (4, 0)
    assert [row["image_id"] for row in outcome.rows.to_pylist() if row["unreadable"]] == ["cut.png"]
    store.pipe("films/set/4.png", image_file(test_images[4]))
    again = score(model, "s3://films/set", workspace, "s3://films/scores")
    assert (again.rows["image_id"].to_pylist(), again.known, again.version) == (["4.png"], 4, 1)
    assert len(DeltaTable("s3://films/scores").to_pyarrow_table()) == 5
    for source, place in (("s3://nobucket/set", "s3://films/scores"), ("s3://films/set", "s3://nobucket/scores")):
        with pytest.raises(InputError, match="does not exist|cannot be reached"):
            score(model, source, workspace, place)
    # Keys that end after the listing.
    listing = list_images("s3://films/set", workspace, model.properties)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ended")
    s3fs.S3FileSystem.clear_instance_cache()
    rows = [row | {"image_id": "new"} for row in listing.images.to_pylist()]
    with pytest.raises(InputError, match="cannot be reached .*AWS_SECRET_ACCESS_KEY.* run the same command again"):
        list(read_images(rows, model.properties))
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.usefixtures("s3_server")
def test_row_groups_of_a_table_in_a_store_give_what_those_of_a_disk_give(model, workspace, monkeypatch):
    rows = list_images("", workspace, model.properties).images.to_pylist()
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("tables")
    there = [row | {"file": f"s3://tables/{Path(row['file']).name}"} for row in rows]
    for row, copy in zip(rows, there, strict=True):
        store.pipe(copy["file"], Path(row["file"]).read_bytes())
    here, gone = list(read_images(rows, model.properties)), there[0]["file"]
    for image, other in zip(here, read_images(there, model.properties), strict=True):
        np.testing.assert_array_equal(image.pixels, other.pixels)
    footer_of.cache_clear()
    store.rm(gone)
    images = list(read_images(there, model.properties))
    lost = [row["file"] == gone for row in there]
    assert [(image.unreadable or "").startswith(OUT_OF_REACH) for image in images] == lost
    footer_of.cache_clear()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ended")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match="s3://tables/.* cannot be reached"):
        list(read_images(there, model.properties))
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_second_run_adds_nothing_and_a_new_version_scores_all_again(model, workspace, output):
    number = sum(ROWS.values())
    score(model, "", workspace, output)
    again = score(model, "", workspace, output)
    assert (len(again.rows), again.known, again.version) == (0, number, None)
    assert DeltaTable(output).version() == 0
    assert len(score(numbered(model, 2), "", workspace, output).rows) == number
    assert len(score(replace(model, mode="fp32"), "", workspace, output).rows) == number
    # A table of an older release may be read by Spark at any version from now on.
    write_deltalake(older := f"{output}-older", DeltaTable(output).to_pyarrow_table())
    assert score(model, "", workspace, older).version is None
    assert DeltaTable(older).metadata().configuration == KEEP_HISTORY
    # By its workspace the table is the same one.
    assert score(model, str(workspace.root), workspace, output).version is None
    versions = [(row["model_version"], row["mode"]) for row in rows_in(output)]
    assert [versions.count(kind) for kind in ((1, "int8"), (2, "int8"), (1, "fp32"))] == [number] * 3


def image_file(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path, test_images) -> Path:
    """Films by content, whatever their names, and what is none."""
    films, folder = [np.kron(image, np.ones((4, 4), np.uint8)) for image in test_images], tmp_path / "films"
    (folder / "deeper" / "down").mkdir(parents=True)
    for name, content in {
        "one.png": image_file(films[0]),
        "deeper/two.jpg": image_file(films[1], "JPEG"),
        "deeper/down/three": image_file(films[2], "TIFF"),
        "four.dcm": written(build(films[3])),
        "noise.png": image_file(np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)),
        "cut.png": image_file(films[4])[:-500],
        "empty.png": b"",
        "labels.csv": b"image,label\n",
        ".hidden.png": image_file(films[4]),
    }.items():
        (folder / name).write_bytes(content)
    (folder / "nowhere.png").symlink_to("nothing")
    return folder


def test_a_folder_s_files_each_get_a_row(model, workspace, output, folder):
    score(model, str(folder), workspace, output)
    rows = {row["image_id"]: row for row in rows_in(output)}
    assert {name: row["unreadable"] for name, row in rows.items() if row["unreadable"]} == {
        "cut.png": "truncated PNG: b'IDAT' chunk is cut",
        "empty.png": "empty file",
        "labels.csv": "no PNG, JPEG, TIFF, WEBP, BMP or DICOM: starts with b'image,la'",
        "nowhere.png": "cannot be read: No such file or directory",
    }
    scored = {name: row for name, row in rows.items() if not row["unreadable"]}
    assert sorted(scored) == ["deeper/down/three", "deeper/two.jpg", "four.dcm", "noise.png", "one.png"]
    film = load_film((folder / "one.png").read_bytes(), model.properties)
    expected = model.predict(film.pixels[None]).probabilities[0]
    got = [rows["one.png"][f"probability_{finding}"] for finding in FINDINGS]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    status = (folder / "one.png").stat()
    assert rows["one.png"]["image_version"] == f"{status.st_size}:{status.st_mtime_ns}"
    assert (rows["one.png"]["source"], rows["one.png"]["table_version"]) == (str(folder), None)
    # What the network says of what it has not learned is kept from everybody.
    noise = rows["noise.png"]
    assert noise["familiar"] is False
    assert noise["called"] is noise[f"probability_{FINDINGS[0]}"] is None
    assert noise["distance"] > model.properties.distance_threshold


def test_only_new_and_changed_files_and_those_out_of_reach_are_scored_again(model, workspace, output, folder):
    score(model, str(folder), workspace, output)
    # Nobody may have read it: it is tried again, and what was known already is not told twice.
    again = score(model, str(folder), workspace, output)
    assert (again.version, again.known, again.out_of_reach) == (None, 8, 1)
    shutil.copy(folder / "one.png", folder / "new.png")
    shutil.copy(folder / "one.png", folder / "cut.png")
    outcome = score(model, str(folder), workspace, output)
    assert sorted(outcome.rows["image_id"].to_pylist()) == ["cut.png", "new.png"]
    assert (outcome.known, outcome.out_of_reach) == (7, 1)
    assert sorted(row["unreadable"] is None for row in rows_in(output) if row["image_id"] == "cut.png") == [False, True]


def test_the_scores_may_lie_in_the_folder_that_is_scored(model, workspace, folder):
    output = str(folder / "scores")
    score(model, str(folder), workspace, output)
    assert score(model, str(folder), workspace, output).version is None


def test_workspaces_in_a_folder_are_left_out(model, workspace, tmp_path):
    marked = [*(f"one/{name}" for name in ("card.json", "card.html")), "deep/two/card.json", "deep/two/mlflow.db"]
    for name in ("a/1.png", "one/figures/2.png", "deep/two/3.png", "deep/4.png", "card/card.json", *marked):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    listing = list_images(str(tmp_path), workspace, model.properties)
    assert listing.images["image_id"].to_pylist() == ["a/1.png", "card/card.json", "deep/4.png"]
    assert listing.left_out == {"in a workspace": 6}


def test_heat_maps_of_an_earlier_run_are_left_out_of_a_folder(model, workspace, tmp_path):
    for name in ("a/1.png", "a/heatmap.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    picture = write_overlay(b"picture", tmp_path / "a", str(tmp_path / "a" / "1.2.840.7"), "Mass")
    listing = list_images(str(tmp_path), workspace, model.properties)
    assert picture.exists() and listing.images["image_id"].to_pylist() == ["a/1.png", "a/heatmap.png"]
    assert listing.left_out == {"a heat map of an earlier run": 1}


def test_only_what_is_of_a_delta_table_is_left_out_of_a_folder(model, workspace, tmp_path):
    for name in ("ct/_delta_log/0.json", "ct/a.parquet", "ct1/y.png", "ct_delta_log/x.png", "z.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    listing = list_images(str(tmp_path), workspace, model.properties)
    assert listing.images["image_id"].to_pylist() == ["ct1/y.png", "ct_delta_log/x.png", "z.png"]
    assert listing.left_out == {"in a Delta table": 2}


def test_scores_of_another_model_by_the_same_name_and_number_do_not_count(model, workspace, output, fp32):
    number = len(score(model, "", workspace, output).rows)
    # As every registry begins with a version 1.
    other = fp32.with_name("other") / "int8"
    shutil.copytree(fp32, other, dirs_exist_ok=True)
    namesake = replace(model, files=replace(model.files, folder=other.parent))
    assert len(score(namesake, "", workspace, output).rows) == number


def test_two_runs_at_once_do_not_score_an_image_twice(model, workspace, output, monkeypatch):
    looked = scores._known_images

    def meanwhile(table, run):
        """Between this run's look and its commit another one adds the same rows."""
        known = looked(table, run)
        monkeypatch.undo()
        score(model, "", workspace, output)
        return known

    listing = list_images("", workspace, model.properties)
    half = listing.only([index % 2 == 0 for index in range(len(listing.images))])
    score_new(model, half, output, BATCH_SIZE, map_in_arrow)
    answers = score_new(model, listing, output + "-apart", BATCH_SIZE, map_in_arrow).rows
    run = Run("chexscale", 1, "int8", sha256_of(model.folder / "int8"), listing.source, 0, datetime.now(UTC))
    monkeypatch.setattr(scores, "_known_images", meanwhile)
    with pytest.raises(InputError, match="took no new version .*: run it again"):
        append_scores(output, answers.select(answer_schema(FINDINGS).names), run)
    assert len(rows_in(output)) == len(listing.images)


def test_a_file_that_a_library_fails_on_in_its_own_way_ends_no_run(model, workspace, output, folder, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("inference.film.films.load_film", fail)
    rows = score(model, str(folder), workspace, output).rows.to_pylist()
    reasons = {row["image_id"]: row["unreadable"] for row in rows}
    assert reasons["one.png"] == "cannot be decoded: ZeroDivisionError: division by zero"


def test_damaged_rows_and_a_lost_file_of_the_table_are_told(model, workspace, output, tmp_path):
    listing = list_images("", workspace, model.properties)
    lost, cut = listing.images.slice(0, 3), listing.images.slice(3, 2)
    short = pa.table({f"image_{SIZE_PX}": pa.array([b"short", None], pa.binary())})
    pq.write_table(short, tmp_path / "short.parquet")
    places = [(lost, str(tmp_path / "lost.parquet"), [0, 1, 2]), (cut, str(tmp_path / "short.parquet"), [0, 1])]
    damaged = [
        part.set_column(2, "file", pa.array([file] * len(part)))
        .set_column(3, "row_group", pa.array([0] * len(part), pa.int32()))
        .set_column(4, "row", pa.array(rows, pa.int32()))
        for part, file, rows in places
    ]
    good = listing.images.slice(5, 40)
    listing = Listing(listing.source, 0, pa.concat_tables([*damaged, good]))
    outcome = score_new(model, listing, output, BATCH_SIZE, map_in_arrow)
    reasons = outcome.rows["unreadable"].to_pylist()
    assert all(reason.startswith("cannot be read: ") for reason in reasons[:3])
    assert reasons[3:5] == [f"damaged row: {size} bytes, expected {SIZE_PX**2}" for size in (5, 0)]
    assert reasons[5:] == [None] * 40
    assert outcome.rows["image_id"].to_pylist() == listing.images["image_id"].to_pylist()


def test_another_vocabulary_adds_its_columns(model, workspace, output, tmp_path):
    score(model, "", workspace, output)
    findings = ["Bright_Corner", "Lung Opacity", "No Finding"]
    graph = with_properties(open_graph(model.folder / "int8"), replace(model.properties, findings=findings))
    save_graph(graph, tmp_path / "other" / "int8")
    properties = properties_of(open_graph(tmp_path / "other" / "int8"))
    files = ModelFiles(model.name, 2, tmp_path / "other")
    other = replace(model, files=files, properties=properties)
    assert score(other, "", workspace, output).version == 1
    for row in rows_in(output):
        known = FINDINGS if row["model_version"] == 1 else findings
        for finding in {*FINDINGS, *findings}:
            assert (row[f"probability_{finding}"] is None) == (finding not in known or not row["familiar"])


def test_a_model_of_one_thread_is_bound_to_no_core(model):
    """Otherwise all of Spark's workers would compute on the same one."""
    predict, properties = open_variant("int8", model.folder / "int8", num_threads=1)
    pixels = np.zeros((BATCH_SIZE, properties.size_px, properties.size_px), np.uint8)
    cores, thread, seen, ended = os.sched_getaffinity(0), threading.get_native_id(), set(), threading.Event()

    def look() -> None:
        while not ended.wait(0.001):
            seen.add(frozenset(os.sched_getaffinity(thread)))

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(100):
        predict(pixels)
    ended.set()
    watcher.join()
    assert seen == {frozenset(cores)}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "absent does not exist, expected a folder of images or a workspace with a table"),
        ("file.png", "file.png is a file, expected a folder"),
        ("empty", "no image files below .*empty, which has 0 files: give a folder of images with --scoring.source"),
        ("", "no dataset card at .*: run `spark-submit etl/preprocess.py`"),
        ("s4://bucket/images", "scoring.source is .s4://bucket/images., and s4:// is unknown here: known are s3://"),
    ],
)
def test_sources_with_nothing_to_score(model, tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"")
    source = source if "://" in source or not source else str(tmp_path / source)
    with pytest.raises(InputError, match=message):
        list_images(source, Workspace.at(str(tmp_path / "workspace")), model.properties)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes_px": [32]}, r"the model takes 64 pixels, the table of .* has \[32\]: run the ETL with this size"),
        ({"channels": 3}, "are in colour, those that the model takes are grey"),
        ({"settings": {"square": "stretch", "intensity": "none"}}, "made with etl.square stretch, .* trained with pad"),
        ({"settings": {"grey_bits": 12}}, "made with etl.grey_bits 12, .* trained with 0"),
        ({"table": "elsewhere"}, "no Delta table at .*elsewhere/shards"),
        ({"delta_version": 7}, "version 7 of .* cannot be read"),
    ],
)
def test_tables_that_the_model_cannot_read(model, workspace, tmp_path, changes, message):
    other = Workspace.at(str(shutil.copytree(workspace.root, tmp_path / "workspace")))
    replace(Card.read(other.card), **changes).write(other.card)
    with pytest.raises(InputError, match=message):
        list_images("", other, model.properties)


def test_places_that_hold_something_else_than_scores(model, workspace, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    write_deltalake(tmp_path / "other", pa.table({"image_id": ["a"], "model": [1]}))
    listing = list_images("", workspace, model.properties)
    for name, message in (
        ("file", "is no Delta table of scores: choose another folder"),
        ("folder", "is no Delta table of scores: choose another folder"),
        ("other", "holds something else than scores: choose another scoring.output"),
    ):
        with pytest.raises(InputError, match=message):
            score_new(model, listing, str(tmp_path / name), BATCH_SIZE, map_in_arrow)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_place_that_is_read_only_is_named_before_any_image(model, workspace, tmp_path):
    """As the scores of a workspace that is mounted read-only."""
    listing, place = list_images("", workspace, model.properties), tmp_path / "place"
    place.mkdir()
    if subprocess.run(["mount", "--bind", "-o", "ro", place, place], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(InputError, match=f"{place} is read-only .*; choose another folder with --scoring.output"):
            score_new(model, listing, str(place / "work" / "scores"), BATCH_SIZE, never)
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def champion(model, workspace, tmp_path_factory) -> Workspace:
    """A copy of the workspace with the model in its registry: the other tests' stays without."""
    return register_champion(model, workspace, tmp_path_factory.mktemp("batch"))


def start(program: list[str], workspace: Workspace, log: Path, *options: str) -> subprocess.Popen:
    """The command as a user runs it, the first of a group of processes."""
    environment = {**os.environ, "COLUMNS": "200"}
    with log.open("wb") as output:
        return subprocess.Popen(
            [*program, "inference/predict.py", "--workspace", str(workspace.root), *options],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def commands_in(session: int) -> str:
    """The command lines of all processes of a session, whoever their parents are by now."""
    commands = []
    for process in psutil.process_iter():
        # One that has just ended must not hide the others.
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            commands += process.cmdline() if os.getsid(process.pid) == session else []
    return " ".join(commands)


@pytest.mark.long
@pytest.mark.spark
def test_a_killed_command_leaves_nothing_and_the_next_one_is_complete(champion, tmp_path):
    log = tmp_path / "log"
    job = start(SPARK_SUBMIT, champion, log)
    end = time.monotonic() + 120
    # Spark's Python workers run only while images are scored.
    while "pyspark.daemon" not in commands_in(job.pid):
        assert job.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    assert not (champion.scores / "_delta_log").exists()

    number = sum(ROWS.values())
    assert start(SPARK_SUBMIT, champion, log).wait() == 0, log.read_text()
    said = log.read_text()
    assert re.search(rf"{number} images scored in \d+ s.* 0 not readable; 0 already had scores", said)
    assert f"Scores: {champion.scores}, Delta version 0" in said
    assert "(int8), thresholds youden; research use only" in said
    assert said.strip().splitlines()[-1].startswith("Next: ")
    assert "Traceback" not in said and " WARN " not in said
    assert len(rows_in(str(champion.scores))) == number

    # Spark is not even needed.
    assert start([sys.executable], champion, log).wait() == 0, log.read_text()
    said = log.read_text()
    assert re.search(rf"nothing is new: chexscale version \d+ \(int8\) has already scored {number} images", said)
    assert "images to scores" not in said
    assert DeltaTable(champion.scores).version() == 0

    # The same model from a package: the same name, version and hash.
    package = tmp_path / "model.zip"
    write_package(find_model(champion, "chexscale"), [], package)
    assert start([sys.executable], champion, log, f"--model={package}").wait() == 0, log.read_text()
    said = log.read_text()
    assert re.search(rf"nothing is new: chexscale version \d+, package \w+ \(int8\) .* scored {number} images", said)


def test_without_a_champion_the_command_says_what_to_do(new_store, tmp_path):
    workspace = Workspace.at(str(tmp_path / "workspace"))
    new_store(workspace)
    log = tmp_path / "log"
    assert start([sys.executable], workspace, log).wait() == 2
    message = r"error: no version or alias champion of chexscale in .*: run `python inference/register.py`"
    assert re.search(message, log.read_text())
