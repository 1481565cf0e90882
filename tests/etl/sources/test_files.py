"""Names of tables and the files that they mean; and every file is in one of the numbers."""

import time
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.settings import Columns, Etl
from etl.contract.clutter import find_clutter
from etl.contract.listing import list_files
from etl.contract.storage import locate
from etl.sources.files import count_left_out, match_files
from etl.sources.published.chexpert import CHEXPERT_FINDINGS
from etl.sources.read import read_manifest
from tests.conftest import InlineWorkers, png
from tests.etl.dicom_files import build, written

FILM_PX = np.zeros((8, 8), np.uint8)
FILM = png(FILM_PX)
DICOM = [written(build(FILM_PX, SOPInstanceUID="1.2.3")), written(build(FILM_PX, SOPInstanceUID="4", PatientID=None))]
FILES = {".png": FILM, ".PNG": b"no image", ".txt": b"text", ".csv": b"a,b\n", "": FILM}
FILES |= {".dcm": DICOM[0], ".dicom": DICOM[1], ".ima": b"\0" * 128 + b"DICM"}
NAMES = st.sampled_from(["a", "b", ".hidden", "._a", "scan_mask", "scan", "ü"])
FOLDERS = st.sampled_from(["", "x", "patient1", "__MACOSX", ".git", "masks"])
TREE = st.sets(st.tuples(FOLDERS, FOLDERS, NAMES, st.sampled_from(list(FILES))), max_size=12)


def match(names: list[str], files: list[str], links: dict[str, str] | None = None) -> list[str | None]:
    listed = pd.DataFrame({"clutter": pd.Series(find_clutter(files), files, dtype=object)})
    listed.attrs["links"] = links or {}
    return match_files(pd.Series(names, dtype=str), listed, Path("labels.csv")).tolist()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("./a/1.png", "a/1.png"),
        (".\\a\\1.png", "a/1.png"),
        ("a//1.png", "a/1.png"),
        ("A/1.PNG", "a/1.png"),
        ("/mnt/elsewhere/films/a/1.png", "a/1.png"),
        ("C:\\films\\a\\1.png", "a/1.png"),
        (unicodedata.normalize("NFD", "Größe.png"), unicodedata.normalize("NFC", "Größe.png")),
        ("1.png", "images/a/1.png"),
        ("1", "images/a/1.dcm"),
        ("a/1", "images/a/1.png"),
        ("1.2.276.0.7230010.3", "train/1.2.276.0.7230010.3.dcm"),
        ("1.2.276.0.7230010.3", "train/1.2.276.0.7230010.3"),
    ],
)
def test_a_name_may_be_spelled_otherwise_or_lack_folder_and_ending(name, file):
    assert match([name, "gone.png"], [file, "other/2.png", "other/1.txt"]) == [file, None]


@pytest.mark.parametrize("name", ["b/1.png", "2.png", "1.jpg", "png", "", "11.png", "1.p"])
def test_another_folder_or_name_is_another_image(name):
    assert match([name], ["a/1.png"]) == [None]


def test_a_name_that_fits_two_files_is_refused():
    with pytest.raises(InputError, match=r"'1' fits 2 files, 'a/1.png' and 'b/1.png': write the path below the source"):
        match(["1"], ["a/1.png", "b/1.png", "__MACOSX/a/1.png", "a/.1.png", "1.txt"])


def test_two_names_of_one_file_are_refused():
    with pytest.raises(InputError, match=r"'1.png' and './1.png' are the same file, '1.png'"):
        match(["1.png", "./1.png"], ["1.png"])


def test_folders_in_front_are_left_out_for_all_names_or_none():
    assert match(["/disk/a/1.png", "/disk/b/2.png"], ["a/1.png", "b/2.png"]) == ["a/1.png", "b/2.png"]
    for names in (["a/1.png", "b/2.png"], ["x/b/2.png", "y/a/1.png"]):
        with pytest.raises(
            InputError, match="only without its first folders, .*: write all names as paths.* list it under"
        ):
            match(names, ["1.png", "b/2.png"] if names[0] == "a/1.png" else ["a/1.png", "b/2.png"])


LINKS = {"extra": "store/deep", "data/more": "extra/b", "train/self": "train"}


@pytest.mark.parametrize(
    "name",
    [
        "extra/4.png",
        "./extra/4.png",
        "extra\\4.png",
        "Extra/4.PNG",
        "extra/4",
        "train/self/self/0.png",
    ],
)
def test_a_name_may_lead_through_a_link(name):
    files = ["train/0.png", "store/deep/4.png", "4.jpg/4.png"]
    expected = "train/0.png" if "train" in name else "store/deep/4.png"
    assert match([name, "gone.png"], files, LINKS) == [expected, None]


@pytest.mark.parametrize("root", ["", "data/", "C:\\films\\", "Data/"])
@pytest.mark.parametrize("link", ["extra", "Extra", "store/deep"])
def test_a_name_through_a_link_may_have_folders_in_front_as_the_others_have(root, link):
    files = ["train/0.png", "store/deep/4.png", "store/deep/b/5"]
    names = [f"{root}train/0.png", f"{root}{link}/4.png", f"{root}{link}/b/5"]
    assert match(names, files, LINKS) == files


def test_a_name_may_lead_through_the_end_of_a_link_and_through_several():
    files = ["1.png", "store/deep/b/5.png"]
    for name in ("data/more/5.png", "more/5.png", "More\\5", "disk/Data/more/5.png", "extra/b/5.png"):
        assert match([name], files, LINKS) == ["store/deep/b/5.png"]
    assert match(["less/5.png", "more/6.png", "more"], files, LINKS) == [None] * 3


@pytest.mark.parametrize("written_as", ["extra/{}.png", "data/extra/{}.png", "extra\\{}.png", "Extra/{}.png"])
def test_no_image_behind_a_linked_folder_is_lost(tmp_path, written_as):
    for name in (*(f"train/{number}.png" for number in range(4)), *(f"store/{number}.png" for number in range(4, 7))):
        add(tmp_path, name, FILM)
    (tmp_path / "extra").symlink_to(tmp_path / "store")
    root = "data/" if written_as.startswith("data/") else ""
    names = [*(f"{root}train/{number}.png" for number in range(4)), *map(written_as.format, range(4, 7))]
    add(tmp_path, "labels.csv", "image,Mass\n" + "".join(f"{name},1\n" for name in names))
    manifest = read_manifest(locate(str(tmp_path)), Etl(format="csv", columns=Columns(patient="")))
    assert (len(manifest.images), manifest.absent, manifest.left_out) == (7, 0, {})


def test_many_links_to_a_large_folder_are_no_work_per_file():
    files = [f"store/{number}.png" for number in range(20_000)]
    links = {f"fold{number}/images": "store" for number in range(500)}
    names = [f"Fold{number % 500}/images/{number}.png" for number in range(20_000)]
    started = time.perf_counter()
    assert match(names, files, links) == files
    assert time.perf_counter() - started < 20


PATHS = st.lists(st.sampled_from(["a", "b", "1"]), min_size=1, max_size=3).map("/".join)


@given(names=st.lists(PATHS, unique=True, min_size=1, max_size=8), data=st.data())
def test_a_name_without_a_file_takes_none_that_another_name_has_exactly(names, data):
    files = data.draw(st.lists(st.sampled_from(names), unique=True))
    assert match(names, files) == [name if name in files else None for name in names]


def test_a_name_whose_folders_lead_nowhere_is_absent_if_its_file_is_another_name_s():
    assert match(["0.png", "1.png", "b/0.png"], ["0.png", "1.png"]) == ["0.png", "1.png", None]
    assert match(["a/0.png", "0.png", "0"], ["a/0.png"]) == ["a/0.png", None, None]
    assert match(["extra/0.png", "data/extra/0.png"], ["store/deep/0.png"], LINKS) == ["store/deep/0.png", None]
    # One image, written twice.
    for again in ("A/0.PNG", ".//a/0.png", "a/0"):
        with pytest.raises(InputError, match=r"are the same file, 'a/0.png': keep one row"):
            match(["a/0.png", again], ["a/0.png"])


@given(names=st.lists(st.text("ab/.1", min_size=1, max_size=6), unique=True, max_size=6), data=st.data())
def test_exact_names_are_always_found(names, data):
    files = data.draw(st.lists(st.sampled_from(names or ["a"]), unique=True))
    try:
        found = match(names, files)
    except InputError:
        return
    for name, file in zip(names, found, strict=True):
        assert file == name if name in files else file is None or file in files


def count(files: list[str]) -> dict[str, int]:
    return count_left_out(pd.Series("no image", files), pd.Series(find_clutter(files), files, dtype=object))


def test_left_out_files_are_counted_by_kind():
    files = ["a.txt", "b/c.TXT", ".DS_Store", "__MACOSX/._a.png", "1.2.3.4", "v.nii.gz", "t/_delta_log/0.json"]
    files += ["film-heatmap-03fb11a2c9-Mass.png"]
    counted = count(files)
    assert counted == {
        ".txt, no image": 2,
        "hidden": 1,
        "in __MACOSX": 1,
        "without ending, no image": 1,
        ".nii.gz, no image": 1,
        "in a Delta table": 1,
        ".png, a heat map of an earlier run": 1,
    }
    many = [f"a.{one}{other}" for one in "abcde" for other in "abcdefgh"]
    assert sum(count(many).values()) == len(many)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    numbers = iter(range(10_000))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CHEXSCALE_SALT", "not a secret, as it stands here")
        yield lambda: tmp_path_factory.mktemp(f"tree{next(numbers)}")


def images_in(names: list[str], listed: set[int]) -> list[str]:
    return [name for index, name in enumerate(names) if index in listed]


def add(folder: Path, name: str, content: bytes | str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def write_csv(folder: Path, listed: list[str]) -> set[str]:
    base = add(folder, "base.dcm", written(build(FILM_PX, SOPInstanceUID="5")))
    rows = "".join(f"{name},1\n" for name in [*listed, base, "gone.png"])
    return {add(folder, "labels.csv", f"image,Mass\n{rows}")}


def write_classes(folder: Path, listed: list[str]) -> set[str]:
    for name in ("x/base.png", "patient1/base.png"):
        add(folder, name, FILM)
    return set()


def write_nih(folder: Path, listed: list[str]) -> set[str]:
    add(folder, "x/base.png", FILM)
    names = sorted({Path(name).name for name in listed} | {"base.png", "gone.png"})
    rows = "".join(f"{name},Mass,{number}\n" for number, name in enumerate(names))
    header = "Image Index,Finding Labels,Patient ID\n"
    boxes = add(folder, "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    return {add(folder, "Data_Entry_2017.csv", header + rows), boxes}


def write_chexpert(folder: Path, listed: list[str]) -> set[str]:
    header, labels = ",".join(["Path", *CHEXPERT_FINDINGS]), ",1" * len(CHEXPERT_FINDINGS)
    films = [add(folder, f"patient{number}/study1/base.png", FILM) for number in (8, 9)]
    rows = "".join(f"top/{name}{labels}\n" for name in [*(name for name in listed if "patient1/" in name), films[0]])
    table = add(folder, "train.csv", f"{header}\n{rows}")
    return {table, add(folder, "valid.csv", f"{header}\ntop/{films[1]}{labels}\n")}


SOURCES = [
    (Etl(format="csv", columns=Columns(patient="")), write_csv),
    (Etl(format="classes"), write_classes),
    (Etl(format="nih", split="hashed", image_folders=["x", "masks"]), write_nih),
    (Etl(format="chexpert", split="hashed"), write_chexpert),
    (Etl(format="dicom", columns=Columns(patient="")), write_csv),
]


@settings(max_examples=40, deadline=None)
@given(tree=TREE, listed=st.sets(st.integers(0, 11)))
def test_every_file_of_a_source_is_in_one_of_the_numbers(place, tree, listed):
    for wanted, write_tables in SOURCES:
        folder, names = place(), []
        for top, second, name, ending in sorted(tree):
            path = folder.joinpath(top, second, name + ending)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(FILES[ending])
            names.append(str(path.relative_to(folder)))
        tables = write_tables(folder, images_in(sorted(set(names)), listed))
        try:
            manifest = read_manifest(locate(str(folder)), wanted, InlineWorkers())
        except InputError:
            continue
        event(f"{wanted.format}: read")
        files = list_files(locate(str(folder)))
        assert len(manifest.images) + sum(manifest.left_out.values()) + len(tables) == len(files)
        assert manifest.images.path.isin(files.path).all() and manifest.images.path.is_unique
        assert manifest.listed == len(manifest.images) + manifest.absent


@pytest.mark.parametrize(("wanted", "write_tables"), SOURCES, ids=lambda one: getattr(one, "format", ""))
def test_what_earlier_runs_left_below_a_source_is_left_out_by_every_reader(place, wanted, write_tables):
    folder, listed = place(), ["x/1.dcm", "patient1/1.dcm"]
    for number, name in enumerate(listed):
        add(folder, name, written(build(FILM_PX, SOPInstanceUID=f"6.{number}")))
    write_tables(folder, listed)
    before = read_manifest(locate(str(folder)), wanted, InlineWorkers())
    heatmap = "film.dcm-heatmap-03fb11a2c9-Mass.png"
    made = {"in a workspace": [f"w/{name}" for name in ("card.json", "card.html", "x/1.dcm", "patient1/base.png")]}
    made |= {"in a Delta table": ["t/_delta_log/0.json", "t/x/1.png"]}
    made |= {".png, a heat map of an earlier run": [heatmap, f"x/{heatmap}", f"patient1/{heatmap}"]}
    for name in (name for names in made.values() for name in names):
        add(folder, name, DICOM[0])
    after = read_manifest(locate(str(folder)), wanted, InlineWorkers())
    assert after.images.path.tolist() == before.images.path.tolist()
    assert after.left_out == before.left_out | {why: len(names) for why, names in made.items()}


def test_a_table_may_name_a_file_in_a_workspace_by_its_whole_path():
    files = ["w/card.json", "w/card.html", "w/phantoms/1.png", "x/2.png"]
    assert match(["w/phantoms/1.png", "2.png"], files) == ["w/phantoms/1.png", "x/2.png"]
    assert match(["phantoms/1.png", "2.png"], files) == [None, "x/2.png"]
