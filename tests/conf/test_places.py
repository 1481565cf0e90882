"""Places that settings may name, tried at the libraries that open them."""

import importlib.util
import os
import re
import shlex
import string
import tempfile
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import assume, example, given
from hypothesis import strategies as st

from conf.errors import InputError
from conf.places import CLIENTS, EXTRAS, FILES, SCORES, TABLES, WORKSPACE, place_of
from conf.workspace import Workspace
from tests.conftest import ODD

NAMES = st.text(st.sampled_from(string.printable + "ä日😀\x7f\x85\u2028\ufffe\udcff") | st.characters(), min_size=1)


def choice(error: InputError) -> str:
    """The place that a message offers instead."""
    (place,) = shlex.split(re.search(r"choose another, such as (.*)", str(error), re.DOTALL)[1])
    return place


def keeps_a_table(folder: str) -> bool:
    write_deltalake(folder, pa.table({"a": [1, 2]}))
    (file,) = DeltaTable(folder).file_uris()
    return os.path.isfile(unquote(file)) and os.path.isdir(f"{folder}/_delta_log")


@given(NAMES)
@example("a[b]^c|d")
@example("a\\b")
@example("100%41")
@example("100% of %4")
@example("~")
@example("-x ")
@example(ODD)
def test_a_place_is_taken_by_deltalake_or_refused_with_another_one_that_is(name):
    assume(
        "/" not in name and "\0" not in name and name not in (".", "..") and len(name.encode(errors="replace")) < 255
    )
    with tempfile.TemporaryDirectory() as folder:
        wanted = f"{folder}/{name}/scores"
        try:
            place = place_of("scoring.output", wanted, SCORES)
            assert place == wanted
        except InputError as error:
            place = choice(error)
            assert Path(place).is_relative_to(folder)
        assert keeps_a_table(place_of("scoring.output", place, SCORES))


BAD = {
    "[2017]": r"[ ] (deltalake, which writes the tables, crashes on it)",
    "a^b": "^ (",
    "a|b": "| (",
    "a\\b": "\\ (deltalake takes it for a /)",
    "a\nb": r"\n (deltalake refuses control characters)",
    "a\x7fb": r"\x7f (deltalake refuses",
    "50%20": "%20 (deltalake and MLflow take it for one encoded character)",
    "a#b": "# (Petastorm",
    "a?b": "? (Petastorm",
    os.fsdecode(b"a\xff"): r"\udcff (it is no UTF-8)",
}


@pytest.mark.parametrize("name", BAD)
def test_a_workspace_or_table_at_such_a_place_is_refused_with_the_reason_and_another_place(name, tmp_path):
    wanted = str(tmp_path / name / "runs")
    calls = {
        "workspace": lambda: Workspace.at(wanted),
        "ensemble.members": lambda: Workspace.at(wanted, setting="ensemble.members"),
        "etl.table": lambda: Workspace.at(str(tmp_path)).tables(wanted),
    }
    for setting, call in calls.items():
        with pytest.raises(InputError, match=f"^{setting} is ") as caught:
            call()
        assert BAD[name] in str(caught.value)
        place = choice(caught.value)
        assert place == re.sub(r"[\[\]^|\\\n\x7f#?\udcff]|%20", "_", wanted)
        assert Workspace.at(place).root == Path(place)
    assert not any(tmp_path.iterdir())


def test_a_link_to_such_a_place_is_refused_too(tmp_path):
    """deltalake follows links."""
    (tmp_path / "real [1]").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real [1]")
    with pytest.raises(InputError, match=r"link/runs', a link to '.*real \[1\]/runs', whose path has \[ \]") as caught:
        Workspace.at(str(tmp_path / "link" / "runs"))
    assert choice(caught.value) == str(tmp_path / "real _1_" / "runs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_the_other_place_is_one_where_folders_can_be_made(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "home").mkdir(mode=0o777)
        os.chmod(Path(folder) / "home", 0o777)
        os.chmod(folder, 0o755)
        monkeypatch.setenv("HOME", f"{folder}/home")
        os.seteuid(65534)
        try:
            with pytest.raises(InputError) as caught:
                Workspace.at(f"{folder}/NIH [2017]")
            assert choice(caught.value) == f"{folder}/home/NIH _2017_"
        finally:
            os.seteuid(0)


def test_a_source_may_lie_in_any_folder_and_scores_beside_a_sharp(tmp_path):
    for name in (*string.punctuation.replace("/", ""), "\n", "[2017]", ODD, "%41"):
        assert place_of("etl.source", str(tmp_path / name), FILES) == str(tmp_path / name)
    assert place_of("scoring.output", str(tmp_path / "a#b?"), SCORES) == str(tmp_path / "a#b?")
    with pytest.raises(InputError, match="no UTF-8"):
        place_of("etl.source", str(tmp_path / os.fsdecode(b"\xff")), FILES)


def test_a_home_folder_and_who_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Workspace.at("~/runs").root == tmp_path / "runs"
    with pytest.raises(InputError, match=r"workspace is '~nobody-at-all/x', and there is no user .* write \./~nobody"):
        Workspace.at("~nobody-at-all/x")
    monkeypatch.chdir(tmp_path)
    assert Workspace.at("./~nobody-at-all/x").root == tmp_path / "~nobody-at-all" / "x"
    assert Workspace.at("-x").root == tmp_path / "-x"
    with pytest.raises(InputError, match=r"workspace is empty: name a folder, or write \. for the current one"):
        Workspace.at("")
    assert Workspace.at(".").root == tmp_path


@pytest.mark.parametrize(
    ("use", "address", "message"),
    [
        (WORKSPACE, "s3://bucket/runs", "expected a folder of this machine"),
        (WORKSPACE, "foo://bucket", "expected a folder of this machine"),
        (TABLES, "file:///data/NIH", "write the path itself, such as '/data/NIH'"),
        (FILES, "file:/data/NIH", "write the path itself, such as '/data/NIH'"),
        (TABLES, "s3:/bucket/x", "expected two slashes: s3://bucket/x"),
        *(
            (use, "dbfs:/mnt/x", "an address that only Databricks' own commands know: write '/dbfs/mnt/x'")
            for use in (FILES, TABLES, WORKSPACE, SCORES)
        ),
        (FILES, "DBFS:///mnt/x", "write '/dbfs/mnt/x'"),
        (FILES, "dbfs:/Volumes/c/s/x", "write '/Volumes/c/s/x'"),
        (WORKSPACE, "oss:/bucket/x", r"looks like an address or a path of Windows: write \./oss:/bucket/x for such"),
        (WORKSPACE, "C:/runs", r"looks like an address or a path of Windows: write \./C:/runs"),
        (FILES, "s3:///x", "names no bucket: write s3://BUCKET/FOLDER"),
        (TABLES, "s3://", "names no bucket: write s3://BUCKET/FOLDER"),
        (TABLES, "foo://bucket", r"foo:// is unknown here: known are s3://, s3a://, .*gs://.*abfss://.*az://.*hdfs://"),
        (SCORES, "http://host/x", "http:// is unknown here: known are s3://"),
        (TABLES, "wasbs://c@acc.blob.core.windows.net/x/y", "write abfss://c@acc.dfs.core.windows.net/x/y"),
        (FILES, "wasb://c@acc.blob.core.windows.net/x", "write abfss://c@acc.dfs.core.windows.net/x"),
        (TABLES, "s3://bucket/a[1]", r"whose path has \[ \] .*such as s3://bucket/a_1_"),
        (TABLES, "s3://bucket/a#b?c", r"whose path has # \? \(Petastorm.*such as s3://bucket/a_b_c"),
        (TABLES, "s3://bucket/a*", r"\* \(the clients of stores take it for a pattern\)"),
        (TABLES, "s3://bucket/a::b", r":: \(.* chain of addresses"),
        (TABLES, "s3://bucket/a\u2028", "which are XML"),
        (TABLES, "s3://bucket/a//b", "no empty name of a folder.*such as s3://bucket/a/b"),
        (SCORES, "s3://bucket/%41", "%41 .*such as s3://bucket/_"),
        (FILES, "s3://bucket/a*/b", r"\* .*pattern"),
    ],
)
def test_addresses_that_nothing_can_open(use, address, message):
    with pytest.raises(InputError, match=message) as error:
        place_of("etl.table", address, use)
    assert f"etl.table is {address!r}" in str(error.value)


def test_a_folder_with_a_colon_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("workspace", "./a:/x", WORKSPACE) == str(tmp_path / "a:" / "x")
    (tmp_path / "a:").mkdir()
    assert place_of("workspace", "a:/x", WORKSPACE) == str(tmp_path / "a:" / "x")
    assert place_of("workspace", "12:30/x", WORKSPACE) == str(tmp_path / "12:30" / "x")


def test_addresses_are_named_in_one_way():
    for address in ("s3a://bucket/x", "S3://bucket/x/", "s3://bucket/x"):
        assert Workspace.at(".").tables(address) == ("s3://bucket/x/shards", "s3://bucket/x/quarantine")


@pytest.mark.parametrize(
    "address", ["abfss://c@acc.dfs.core.windows.net/x", "abfs://c/x", "az://c/x", "gs://b/x", "gcs://b/x"]
)
def test_a_client_that_is_not_installed_is_named(address):
    package = CLIENTS[address.partition(":")[0]]
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    for use in (FILES, TABLES, SCORES):
        with pytest.raises(InputError, match=f"is not installed: `pip install 'chexscale.{EXTRAS[package]}.'`"):
            place_of("etl.source", address, use)
