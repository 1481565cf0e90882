"""Damaged label files, lists and box files: each gives a message or a manifest that adds up."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.settings import Etl
from etl.phantoms.generate import BOX_HEADER
from etl.sources.read import read_manifest
from etl.sources.split import find_leaks
from tests.conftest import NihFolder

NAMES = ("Data_Entry_2017_v2020.csv", "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv")
# What spreadsheets, editors, transfers and people do to a table.
PIECES = st.sampled_from(
    [b"", b",", b'"', b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"|", b"No Finding", b"Mass", b" "]
    + [
        b"\t",
        b";",
        "ü".encode(),
        b"-1",
        b"nan",
        b"1e309",
        b"999999999999999999999",
        b"00000001_000.png",
        b"../../x.png",
    ]
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["insert", "replace", "cut", "repeat line", "drop line", "swap lines"]),
        st.floats(0, 1),
        st.floats(0, 1),
        PIECES,
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Path:
    """A folder whose tables have rows like the real ones."""
    folder = NihFolder(tmp_path_factory.mktemp("hostile") / "nih", num_patients=6, size_px=8)
    boxes = ["00000004_000.png,Mass,1.5,2,3,4", "00000004_001.png,Nodule,9,9,9,9,,,"]
    (folder.root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes, ""]))
    return folder.root


def edit(content: bytes, kind: str, place: float, other: float, piece: bytes) -> bytes:
    start, end = sorted((round(place * len(content)), round(other * len(content))))
    if kind == "insert":
        return content[:start] + piece + content[start:]
    if kind == "replace":
        return content[:start] + piece + content[min(end, start + 8) :]
    if kind == "cut":
        return content[:start]
    lines = content.splitlines(keepends=True) or [b""]
    one, two = int(place * (len(lines) - 1)), int(other * (len(lines) - 1))
    if kind == "repeat line":
        lines.insert(two, lines[one])
    elif kind == "drop line":
        del lines[one]
    else:
        lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


@settings(max_examples=150)
@given(edits=EDITS, split=st.sampled_from(["source", "hashed"]))
def test_a_damaged_table_is_refused_with_a_message_or_read_in_full(tables, edits, split):
    original = {name: (tables / name).read_bytes() for name in NAMES}
    try:
        for name, *change in edits:
            (tables / name).write_bytes(edit((tables / name).read_bytes(), *change))
        try:
            manifest = read_manifest(tables, Etl(split=split))
        except InputError as error:
            assert len(str(error)) > 20
            return
        images = manifest.images
        assert manifest.listed == len(images) + manifest.absent
        assert len(images) + sum(manifest.left_out.values()) == 12
        assert images.image_id.is_unique
        assert (images.patient_id != "").all()
        assert images.split.isin(["train", "val", "test"]).eq(images.reason.isna()).all()
        assert find_leaks(images.loc[images.split.notna(), ["patient_id", "split"]]) == []
        assert all(len(boxes) % 5 == 0 for boxes in images.boxes)
    finally:
        for name, content in original.items():
            (tables / name).write_bytes(content)


def test_real_tables_cut_anywhere(nih_sample, tmp_path):
    """A real file that is cut in the middle of a row gives a message, or the rest of it is read."""
    for name in NAMES:
        shutil.copy(nih_sample / name, tmp_path / name)
    (tmp_path / "images").mkdir()
    for image in sorted((nih_sample / "images").iterdir())[:3]:
        (tmp_path / "images" / image.name).symlink_to(image)
    for name in NAMES:
        content = (nih_sample / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(0.3001 * len(content))])
        try:
            manifest = read_manifest(tmp_path, Etl())
            assert manifest.listed == len(manifest.images) + manifest.absent
        except InputError as error:
            assert name in str(error) or "line" in str(error)
        (tmp_path / name).write_bytes(content)
