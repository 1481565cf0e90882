"""Sources and tables in an object store: versitygw, an S3 server, on this machine; skipped if it is missing."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from deltalake import write_deltalake

from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract import s3
from etl.contract.ahead import fetch_ahead
from etl.contract.delta import store_options
from etl.contract.quarantine import QUARANTINE, write_quarantine
from etl.contract.schema import SPLITS, Card, table_schema
from etl.contract.storage import locate, located, open_new, read_bytes
from etl.contract.table import (
    commit,
    read_card,
    snapshot_files,
)
from etl.sources.read import read_manifest
from etl.writing import shard_file
from etl.writing.housekeeping import maintain
from etl.writing.publish import Published, discard, publish
from jobs.benchmarks.stores.link import Link, linked
from tests.conftest import ODD, InlineWorkers, NihFolder, make_card
from tests.etl.spark_commands import ENVIRONMENT, PROJECT, QUICK_START, SCENARIO
from tests.etl.tables import SMALL, add, film, rows_of, run

# An address that refuses every connection.
NOBODY = "http://127.0.0.1:9"


class Bucket:
    """A new bucket, and an NIH folder that is copied into it as another program would copy it."""

    def __init__(self, name: str, folder: NihFolder):
        self.name, self.folder = name, folder
        self.client = s3fs.S3FileSystem(skip_instance_cache=True)
        self.client.mkdir(name)

    def upload(self) -> None:
        self.client.put(f"{self.folder.root}/", f"{self.name}/nih/", recursive=True)

    def data_files(self) -> set[str]:
        self.client.invalidate_cache()
        found = self.client.find(f"{self.name}/table/shards")
        return {f"s3://{key}" for key in found if key.endswith(".parquet") and "_delta_log" not in key}


@pytest.fixture
def bucket(s3_server, nih_folder, request) -> Bucket:
    bucket = Bucket(re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-"), nih_folder)
    bucket.upload()
    return bucket


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def run_there(bucket: Bucket, workspace: Workspace, scheme: str = "s3") -> Published:
    settings = Etl(**SMALL, table=f"{scheme}://{bucket.name}/table/")
    source = locate(f"{scheme}://{bucket.name}/nih")
    manifest = read_manifest(source, settings)
    return publish(workspace.tables(settings.table), settings, str(source), manifest, InlineWorkers())


def rows_there(workspace: Workspace, card: Card) -> pd.DataFrame:
    """rows_of without file_version, which has another form in a store."""
    parts = []
    for split in SPLITS:
        for file in snapshot_files(workspace.tables(card.table)[0], card.delta_version, split):
            with locate(file).open("rb") as source:
                parts.append(pq.ParquetFile(source).read().to_pandas().assign(split=split))
    return pd.concat(parts).set_index("image_id").sort_index().drop(columns="file_version")


def rows_here(folder: NihFolder, place: Path) -> pd.DataFrame:
    local = Workspace.at(str(place))
    return rows_of(local, run(folder, local).card).drop(columns="file_version")


@pytest.mark.parametrize("scheme", ["s3", "s3a"])
@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_a_store_gives_what_a_folder_gives_and_takes_changes(bucket, workspace, tmp_path, scheme):
    first = run_there(bucket, workspace, scheme)
    assert first.counts["new"] == 48
    pd.testing.assert_frame_equal(rows_there(workspace, first.card), rows_here(bucket.folder, tmp_path / "first"))

    again = run_there(bucket, workspace, scheme)
    assert set(again.counts.values()) == {0}
    assert again.card == first.card

    add(bucket.folder, 30, 0, film(30))
    bucket.folder.put("00000001_000.png", film(31))
    bucket.upload()
    merged = run_there(bucket, workspace, scheme)
    assert merged.counts == {"new": 1, "changed": 1, "relabelled": 0, "removed": 0}
    assert merged.card.delta_version == 1
    pd.testing.assert_frame_equal(rows_there(workspace, merged.card), rows_here(bucket.folder, tmp_path / "second"))
    assert not workspace.shards.exists()


def test_odd_characters_of_an_address_are_taken_or_refused(bucket, workspace):
    settings = Etl(**SMALL, table=f"s3://{bucket.name}/{ODD.replace('*', '')}/t")
    manifest = read_manifest(located("etl.source", f"s3://{bucket.name}/nih"), settings)
    card = publish(workspace.tables(settings.table), settings, "", manifest, InlineWorkers()).card
    assert len(rows_there(workspace, card)) == 48
    # deltalake itself ends at these places, or writes to others.
    for part in ("[1]", "a^b", "a|b", "a\\b", "a#b", "a?b", "a\nb", "%41", "\u2028"):
        address = f"s3://{bucket.name}/{part}/t"
        with pytest.raises(InputError, match="etl.table is"):
            workspace.tables(address)
        rows = pa.table({"a": [1]})
        with pytest.raises(BaseException):  # noqa: B017, a panic of Rust is no Exception
            write_deltalake(f"{address}/shards", rows, storage_options=store_options(address))
            assert bucket.client.exists(f"{bucket.name}/{part}/t/shards/_delta_log")


def test_files_are_read_whole_or_in_part_and_may_be_empty(bucket):
    for name, content in (("full", b"film"), ("empty", b"")):
        bucket.client.pipe_file(f"{bucket.name}/{name}", content)
        address = f"s3://{bucket.name}/{name}"
        assert [read_bytes(address), read_bytes(address, 2), read_bytes(address, 9)] == [content, content[:2], content]
        assert [read() for read in fetch_ahead([address] * 2, 3)] == [content[:3]] * 2
    with pytest.raises(FileNotFoundError):
        read_bytes(f"s3://{bucket.name}/nothing", 9)


def test_housekeeping(bucket, workspace):
    run_there(bucket, workspace)
    for patient in (30, 31, 33):
        add(bucket.folder, patient, 0, film(patient))
        bucket.upload()
        card = run_there(bucket, workspace).card
    before, tables = rows_there(workspace, card), workspace.tables(card.table)
    done = maintain(tables, Etl(), set(), 0, InlineWorkers())
    assert done.joined > done.into > 0
    pd.testing.assert_frame_equal(rows_there(workspace, replace(done.card, table=card.table)), before)
    newest = {file for split in SPLITS for file in snapshot_files(tables[0], done.card.delta_version, split)}
    assert bucket.data_files() == newest
    assert set(run_there(bucket, workspace).counts.values()) == {0}


def test_training_reads_every_row_once(bucket, workspace):
    from etl.contract.version import TableVersion
    from training.reading.batches import read_batches
    from training.reading.readers import open_split

    card = run_there(bucket, workspace).card
    expected = rows_there(workspace, card)
    expected = expected[expected.split == "train"]
    split = open_split(TableVersion(workspace.tables(card.table)[0], card), "train", 64)
    seen = []
    for rank in range(2):
        for batch in read_batches(split, 4, rank, 2, shuffle_seed=1):
            for image_id, pixels, labels in zip(batch.image_ids, batch.pixels, batch.labels, strict=True):
                row = expected.loc[str(image_id)]
                assert pixels.numpy().tobytes() == row["image_64"]
                np.testing.assert_array_equal(labels.numpy(), row["findings"])
                seen.append(str(image_id))
    assert sorted(seen) == sorted(expected.index)


FAULTS = {
    "no bucket": ({}, "missing-bucket", "no source folder at s3://missing-bucket", "does not exist"),
    "wrong key": ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "any", "signature", "signature"),
    "server down": ({"AWS_ENDPOINT_URL": NOBODY}, "any", "Could not connect", "refused"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_unreachable_store_is_reported_in_time(s3_server, monkeypatch, fault):
    changes, bucket, of_source, of_table = FAULTS[fault]
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    shards = f"s3://{bucket}/table/shards"
    calls = [
        (lambda: read_manifest(locate(f"s3://{bucket}/nih"), Etl()), of_source),
        (lambda: read_card(shards), of_table),
        (lambda: snapshot_files(shards, 0, "train"), of_table),
        (lambda: write_quarantine(shards, pd.DataFrame(columns=QUARANTINE.names)), of_table),
        (lambda: commit(shards, make_card(["A"], [1], [1]), table_schema([32]), [], None), of_table),
    ]
    started = time.monotonic()
    # Together, because each waits for its store.
    with ThreadPoolExecutor(len(calls)) as threads:
        asked = [threads.submit(call) for call, _ in calls]
        raised = [future.exception() for future in asked]
    assert time.monotonic() - started < 20
    for error, (_, expected) in zip(raised, calls, strict=True):
        assert isinstance(error, InputError)
        assert expected in str(error)
        assert re.search("AWS_ENDPOINT_URL|--etl.source", str(error))
        assert "\x1b" not in str(error)
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def faulty(s3_server, monkeypatch) -> Iterator[Link]:
    """A link to the server, through which the clients go."""
    with linked(int(s3_server.rpartition(":")[2])) as link:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{link.port}")
        s3fs.S3FileSystem.clear_instance_cache()
        yield link
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("fault", ["reset", "drop", "slow down"])
def test_a_fault_that_passes_is_not_noticed(bucket, faulty, fault):
    bucket.client.pipe_file(f"{bucket.name}/film", bytes(100_000))
    faulty.fail(fault, 2, "film")
    assert read_bytes(f"s3://{bucket.name}/film") == bytes(100_000)


def test_keys_that_end_in_mid_run_end_it_and_the_next_run_is_complete(bucket, workspace, faulty, tmp_path):
    settings = Etl(**SMALL)
    source = locate(f"s3://{bucket.name}/nih")
    manifest = read_manifest(source, settings)
    faulty.fail("forbidden", of="images")
    with pytest.raises(InputError, match=r"nih.* cannot be reached \(Told to fail.\).* run the same command again"):
        publish(workspace.tables(""), settings, str(source), manifest, InlineWorkers())
    assert not list(workspace.shards.rglob("*.parquet"))
    faulty.fail("forbidden", 0)
    # A film that is deleted after it was listed is one bad image.
    gone = manifest.images.path[0]
    bucket.client.rm(gone)
    settings = replace(settings, max_quarantined_fraction=0.5)
    done = publish(workspace.tables(""), settings, str(source), manifest, InlineWorkers())
    assert done.quarantine.path.tolist() == [gone]
    assert done.quarantine.reason[0].startswith("cannot be read: ")
    assert len(done.rows) == len(manifest.images) - 1


@pytest.mark.long
def test_a_store_that_takes_no_more_ends_the_run_and_the_next_one_is_complete(bucket, workspace, faulty, monkeypatch):
    monkeypatch.setattr(s3, "REST_S", 0)
    monkeypatch.setattr(shard_file, "UNSENT_BYTES", 1000)
    faulty.fail("slow down", 5, "split%3D")
    assert run_there(bucket, workspace).counts["new"] == 48
    settings = Etl(**SMALL, table=f"s3://{bucket.name}/second/")
    manifest = read_manifest(bucket.folder.root, settings)
    faulty.fail("forbidden", of="split%3Dt")
    with pytest.raises(InputError, match=r"second/shards/split=.*cannot be reached .* run the same command again"):
        publish(workspace.tables(settings.table), settings, "source", manifest, InlineWorkers())
    faulty.fail("forbidden", 0)
    listed = partial(bucket.client.call_s3, "list_multipart_uploads", Bucket=bucket.name)
    assert listed()["Uploads"]
    discard(f"s3://{bucket.name}/second/shards", "00000000")
    assert not listed().get("Uploads")
    done = publish(workspace.tables(settings.table), settings, "source", manifest, InlineWorkers())
    assert (done.card.delta_version, len(done.rows)) == (0, 48)


@pytest.mark.filterwarnings("error", "ignore::ResourceWarning")
def test_arrow_reads_what_s3fs_reads_and_leaves_the_rest_to_it(bucket, monkeypatch):
    store = locate(f"s3://{bucket.name}").fs
    for name in ("plain", "Große, Aufnahme + 1 %41.png", "a=b&c/~.x"):
        bucket.client.pipe_file(f"{bucket.name}/{name}", name.encode())
        assert read_bytes(f"s3://{bucket.name}/{name}") == name.encode()
    assert id(store) not in s3._arrow_rests
    # With keys that only s3fs has, as behind a proxy that only it knows.
    monkeypatch.setattr(s3, "_client_of", lambda *_: s3._connect(NOBODY, None, ("no", "key", None), 1))
    assert read_bytes(f"s3://{bucket.name}/plain") == b"plain"
    assert s3._arrow_rests.pop(id(store)) > time.monotonic()
    with open_new(locate(f"s3://{bucket.name}/written")) as file:
        file.write(b"plain")
    assert s3._arrow_rests.pop(id(store)) > time.monotonic()
    assert read_bytes(f"s3://{bucket.name}/written") == b"plain"


@pytest.mark.spark
@pytest.mark.slow
def test_the_command_from_store_to_store(bucket, workspace, tmp_path):
    scenario = tmp_path / "small.yaml"
    scenario.write_text(SCENARIO)
    address = f"s3a://{bucket.name}"
    command = ["spark-submit", "--master", "local[2]", "--driver-java-options", QUICK_START, "etl/preprocess.py"]
    command += ["--config", str(scenario), "--workspace", str(workspace.root)]
    command += ["--etl.source", f"{address}/nih", "--etl.table", f"{address}/table"]
    finished = subprocess.run(
        command,
        cwd=PROJECT,
        # With the current keys and address.
        env={**ENVIRONMENT, **{name: value for name, value in os.environ.items() if name.startswith("AWS_")}},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "48 images in = 48 rows + 0 quarantined + 0 absent + 0 left out" in finished.stdout
    # Java's line about its own modules is not a warning of ours.
    lines = (finished.stdout + finished.stderr).replace("WARNING: Using incubator modules", "")
    assert not re.search("warning|traceback", lines, re.IGNORECASE), lines
    card = Card.read(workspace.card)
    pd.testing.assert_frame_equal(rows_there(workspace, card), rows_here(bucket.folder, tmp_path / "local"))


def test_the_folders_that_a_console_makes_are_no_files(bucket):
    for key in ("Ill/", "Well/", "empty/"):
        bucket.client.call_s3("put_object", Bucket=bucket.name, Key=f"classes/{key}")
    for key in ("Ill/1.png", "Well/2.png"):
        bucket.client.put_file(next(bucket.folder.root.glob("**/*.png")), f"{bucket.name}/classes/{key}")
    bucket.client.invalidate_cache()
    manifest = read_manifest(locate(f"s3://{bucket.name}/classes"), Etl(format="classes"))
    assert (manifest.findings, manifest.left_out) == (["Ill", "Well"], {})
    assert not any("empty" in note for note in manifest.notes)
