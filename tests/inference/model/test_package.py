"""A package answers as the registry's model does, from anywhere, and one that was changed is refused."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.workspace import Workspace
from conf.writing import write_json
from inference.model.model_files import ModelFiles, find_model, models_cache
from inference.model.package import FORMAT, MANIFEST, Manifest, open_package
from inference.model.packing import write_package
from inference.model.served_model import open_served
from tests.conftest import ODD
from tests.inference.service import toy
from tests.inference.service.page import TEST_ELSEWHERE, model_card

FILMS = np.stack([toy.film(grey, toy.SIZE_PX) for grey in (60, 128, 170)])
MANY = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def registered(new_store, tmp_path_factory) -> ModelFiles:
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry")))
    new_store(workspace)
    _, folder = toy.register(workspace)
    write_json(folder / "report.json", {"test_auroc": {}})
    return find_model(workspace, toy.NAME)


@pytest.fixture(scope="module")
def whole(registered, tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("made") / "model.zip"
    write_package(registered, [], file)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return models_cache()


@pytest.fixture
def file(whole, tmp_path) -> Path:
    (tmp_path / "model.zip").write_bytes(whole)
    return tmp_path / "model.zip"


@pytest.fixture
def folder(file, tmp_path) -> Path:
    """The package, unpacked by a common tool."""
    shutil.unpack_archive(file, tmp_path / "unpacked")
    return tmp_path / "unpacked"


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def answers(files: ModelFiles) -> list[bytes]:
    return [part.tobytes() for part in open_served(files, num_threads=1).predict(FILMS)]


def zipped(contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return stream.getvalue()


def with_manifest(contents: dict[str, bytes], change: Callable[[dict], object]) -> dict[str, bytes]:
    manifest = json.loads(contents[MANIFEST])
    change(manifest)
    return {**contents, MANIFEST: json.dumps(manifest).encode()}


def test_file_and_folder_answer_bit_for_bit_as_the_registry(registered, file, folder, tmp_path):
    expected, moved = answers(registered), tmp_path / ODD
    shutil.move(folder, moved)
    shutil.copy(file, tmp_path / f"{ODD}.zip")
    for path in (file, tmp_path / f"{ODD}.zip", moved):
        found = open_package(path)
        assert (found.name, found.version) == (registered.name, registered.version)
        assert answers(found) == expected
    assert open_package(moved).folder == moved, "a folder is used where it is"
    assert (
        open_package(file).package
        == open_package(moved).package
        == hashlib.sha256((moved / MANIFEST).read_bytes()).hexdigest()
    )


def test_the_same_model_gives_the_same_bytes(registered, whole, tmp_path):
    for path in registered.folder.rglob("*"):
        os.utime(path, (1, 1))
    elsewhere = shutil.copytree(registered.folder, tmp_path / "elsewhere")
    write_package(ModelFiles(registered.name, registered.version, elsewhere), [], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == whole
    with zipfile.ZipFile(tmp_path / "again.zip") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_card_in_the_package_names_the_tests_at_other_sites(registered, whole, tmp_path):
    write_json(registered.folder / "model_card.json", model_card())
    write_package(registered, [], tmp_path / "tested.zip", [TEST_ELSEWHERE])
    (registered.folder / "model_card.json").unlink()
    with zipfile.ZipFile(tmp_path / "tested.zip") as archive:
        pages = ("model_card.json", "model_card.md", "reporting.md")
        card, text, sheet = (archive.read(name).decode() for name in pages)
    assert json.loads(card)["tested_at"] == [TEST_ELSEWHERE]
    assert "| hospital-b, INT8 | 2026-11-01 | 1,000 | 300 | 0.812 [0.780, 0.840] over 2 findings |" in text
    assert "| hospital-b, INT8 | 2026-11-01 | 1,000 |" in sheet.split("## What a person must still write")[0]


def test_the_manifest_says_what_goes_in_what_comes_out_and_where_it_came_from(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["signature"]["inputs"] == [
        {"name": "pixels", "dtype": "uint8", "shape": [-1, toy.SIZE_PX, toy.SIZE_PX]}
    ]
    outputs = {one["name"]: (one["dtype"], one["shape"][:2]) for one in manifest["signature"]["outputs"]}
    assert outputs["probabilities"] == ("float32", [-1, 3]) and list(outputs) == ["probabilities", "maps", "distances"]
    assert manifest["properties"] == asdict(toy.PROPERTIES)
    assert set(manifest["files"]) == set(content_of(folder)) - {MANIFEST}
    assert {"README.md", "model_card.json", "report.json", "boxes.json"} < set(manifest["files"])
    assert "Research use only" in (folder / "README.md").read_text()


def test_a_mode_that_the_model_or_the_package_lacks_is_named(registered, file, tmp_path):
    with pytest.raises(InputError, match=r"has no mode fp32, it has int8: choose among these with --modes"):
        write_package(registered, ["fp32"], tmp_path / "other.zip")
    assert not (tmp_path / "other.zip").exists()
    with pytest.raises(InputError, match=r"has no mode fp32, it has int8: .* --modes '\[fp32\]'"):
        open_served(open_package(file), "fp32")


def test_a_version_that_the_package_does_not_have_is_refused(file, tmp_path):
    nowhere = Workspace.at(str(tmp_path / "nowhere"))
    assert find_model(nowhere, "any", "1", str(file)).version == 1
    with pytest.raises(InputError, match="version 2 was asked for, but --model .* has only version 1"):
        find_model(nowhere, "any", "2", str(file))
    assert not nowhere.root.exists()


@MANY
@given(data=st.data())
def test_a_byte_that_was_changed_is_found_or_changes_nothing(whole, cache, tmp_path, data):
    """Some bytes of an archive say nothing about its files, such as the time of an entry."""
    at = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(1, 255))
    changed = bytearray(whole)
    changed[at] ^= value
    (tmp_path / "changed.zip").write_bytes(changed)
    shutil.rmtree(cache, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        expected = {name: archive.read(name) for name in archive.namelist()}
    try:
        found = open_package(tmp_path / "changed.zip")
    except InputError:
        return
    assert content_of(found.folder) == expected


@MANY
@given(share=st.floats(0, 1, exclude_max=True))
@example(0)
@example(0.999999)
def test_a_package_that_was_cut_is_refused(whole, tmp_path, share):
    (tmp_path / "cut.zip").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match="cut.zip is no whole model package"):
        open_package(tmp_path / "cut.zip")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)
PATHS = st.text(st.sampled_from("ab./\\:\0 ~"), min_size=1, max_size=8)


@MANY
@given(key=st.sampled_from(["kind", "format", "name", "version", "files"]), value=JSON)
@example("files", {})
@example("files", {"int8/model.xml": None})
@example("version", True)
@example("version", 0)
@example("format", 0)
@example("name", "a\x1b[2J")
def test_a_manifest_with_any_other_value_is_refused_or_read(folder, key, value):
    contents = with_manifest(content_of(folder), lambda manifest: manifest.update({key: value}))
    try:
        manifest = Manifest.parse(contents[MANIFEST], folder)
    except InputError as error:
        assert str(folder) in str(error)
    else:
        assert key in ("name", "version") and getattr(manifest, key) == value


@MANY
@given(path=PATHS)
@example("../outside")
@example("/outside")
@example("int8/../../outside")
@example(".hidden")
@example("a//b")
@example(MANIFEST)
def test_no_path_leads_out_of_the_folder(folder, path):
    digest = {"bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    contents = with_manifest(content_of(folder), lambda manifest: manifest["files"].update({path: digest}))
    try:
        listed = Manifest.parse(contents[MANIFEST], folder).files
    except InputError as error:
        assert "no path below the package's folder" in str(error)
        return
    assert path in listed and not {"..", ".", ""} & set(Path(path).parts) and not Path(path).is_absolute()
    assert (folder / path).resolve().is_relative_to(folder.resolve()) and "\\" not in path and ":" not in path


@pytest.mark.parametrize("text", [b"", b"[", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"kind": "other"}'])
def test_what_is_no_manifest_is_named(folder, text):
    (folder / MANIFEST).write_bytes(text)
    with pytest.raises(InputError, match=r"unpacked: manifest.json cannot be read .*: copy it again"):
        open_package(folder)


def test_a_package_of_a_newer_format_says_so_whatever_else_it_has(folder):
    newer = with_manifest(content_of(folder), lambda manifest: manifest.update(format=FORMAT + 1, files="elsewhere"))
    (folder / MANIFEST).write_bytes(newer[MANIFEST])
    with pytest.raises(InputError, match=rf"format {FORMAT + 1}, but this program reads {FORMAT}: update CheXScale"):
        open_package(folder)


def remove(contents: dict) -> None:
    del contents["int8/model.bin"]


def add(contents: dict) -> None:
    contents["fp32/model.xml"] = b"unlisted"


def lengthen(contents: dict) -> None:
    contents["int8/model.xml"] += b" "


def shorten(contents: dict) -> None:
    contents["int8/model.xml"] = contents["int8/model.xml"][:-1]


def replace(contents: dict) -> None:
    contents["boxes.json"] = bytes(len(contents["boxes.json"]))


@pytest.mark.parametrize("is_folder", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove, "lacks int8/model.bin, which its manifest.json lists"),
        (add, "holds 'fp32/model.xml', which its manifest.json does not list"),
        (lengthen, r"int8/model.xml has more than \d+ bytes, expected \d+"),
        (shorten, r"int8/model.xml has \d+ bytes, expected \d+"),
        (replace, "boxes.json has SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}: it was changed or damaged"),
    ],
)
def test_a_file_that_is_not_as_listed_is_named(folder, tmp_path, change, message, is_folder):
    contents = content_of(folder)
    change(contents)
    path = tmp_path / ("changed" if is_folder else "changed.zip")
    path.with_suffix(".zip").write_bytes(zipped(contents))
    if is_folder:
        shutil.unpack_archive(f"{path}.zip", path)
    with pytest.raises(InputError, match=f"{path}.*{message}.*(copy it again|remove it)"):
        open_package(path)


def test_an_archive_that_was_made_otherwise_is_refused(folder, tmp_path):
    contents = content_of(folder)
    twice = io.BytesIO(zipped(contents))
    with zipfile.ZipFile(twice, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(MANIFEST, b"{}")
    for content, message in [
        (zipped(contents, zipfile.ZIP_DEFLATED), "is compressed, as no package is: unpack it, and give the folder"),
        (twice.getvalue(), "two of its entries have the same name"),
        (zipped({**contents, **{f"{number}": b"" for number in range(101)}}), "entries, expected 100 at most"),
        (zipped({"other.txt": b""}), "is no model package, it has no manifest.json"),
        (b"", "is no whole model package"),
        (toy.png(toy.film()), "is no whole model package"),
    ]:
        (tmp_path / "other.zip").write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_package(tmp_path / "other.zip")
    with pytest.raises(InputError, match=r"nowhere.zip cannot be read \(No such file or directory\)"):
        open_package(tmp_path / "nowhere.zip")
    with pytest.raises(InputError, match=r"is no model package, it has no manifest.json"):
        open_package(tmp_path)


def test_what_systems_leave_in_a_folder_is_passed_over(folder):
    (folder / ".DS_Store").write_bytes(b"")
    (folder / "..2026_data").mkdir()
    (folder / "..2026_data" / "model.xml").write_bytes(b"")
    (folder / "lost+found").mkdir()
    assert open_package(folder).version == 1


def test_a_damaged_cache_is_unpacked_again(registered, file, cache):
    graph = open_package(file).folder / "int8" / "model.bin"
    assert graph.is_relative_to(cache)
    graph.write_bytes(bytes(graph.stat().st_size))
    (graph.parent / "other").write_bytes(b"")
    assert answers(open_package(file)) == answers(registered)
    assert not (graph.parent / "other").exists()
    status = graph.stat()
    open_package(file)
    assert graph.stat() == status, "what is whole is not written again"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and become nobody")
def test_a_read_only_folder_needs_no_place_to_write(registered, folder, file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    if subprocess.run(["mount", "--bind", "-o", "ro", folder, folder], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        with pytest.raises(OSError, match="Read-only"):
            (folder / "new").touch()
        assert answers(open_package(folder)) == answers(registered)
    finally:
        subprocess.run(["umount", folder], check=True)
    with pytest.raises(InputError, match="cannot be unpacked into .*: set XDG_CACHE_HOME .* or unpack the package"):
        open_package(file)


@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_kill_while_writing_leaves_the_old_file(registered, whole, tmp_path, step):
    code = f"""
import os, signal, zipfile
from pathlib import Path
from inference.model.model_files import ModelFiles
from inference.model.packing import write_package

steps = iter(range({step}))
writestr = zipfile.ZipFile.writestr

def killed(*arguments):
    if next(steps, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    writestr(*arguments)

zipfile.ZipFile.writestr = killed
write_package(ModelFiles("other", 7, Path({str(registered.folder)!r})), [], Path("model.zip"))
"""
    (tmp_path / "model.zip").write_bytes(whole)
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    assert ended.returncode == -signal.SIGKILL
    assert (tmp_path / "model.zip").read_bytes() == whole
    write_package(registered, [], tmp_path / "model.zip")
    assert open_package(tmp_path / "model.zip").version == 1


def test_a_place_that_cannot_be_written_is_named(registered, file, tmp_path):
    with pytest.raises(InputError, match=r"--output .*model.zip/x.zip cannot be written .*: choose another"):
        write_package(registered, [], file / "x.zip")
    with pytest.raises(InputError, match=r"--output .* cannot be written .*: choose another"):
        write_package(registered, [], tmp_path)


def test_reading_a_package_needs_no_mlflow(file):
    code = f"""
import sys
from conf.workspace import Workspace
from inference.model.model_files import find_model
from inference.model.served_model import open_served
open_served(find_model(Workspace.at("/no/such/workspace"), "", package={str(file)!r}))
print([name for name in ("mlflow", "sqlalchemy", "torch", "pyarrow", "pandas") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
