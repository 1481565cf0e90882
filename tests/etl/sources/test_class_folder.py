"""What folders of classes mean: splits, classes, masks, and what lies beside them."""

import threading

import fsspec
import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Etl
from etl.contract.images.kinds import HEAD_BYTES
from etl.contract.storage import locate
from etl.sources import class_folder
from etl.sources.manifest import Manifest
from etl.sources.read import read_manifest
from etl.sources.split import NEITHER, NO_PATIENTS
from tests.conftest import png
from tests.etl.other_files import OTHERS

FILM = png(np.zeros((8, 8), np.uint8))


@pytest.fixture
def read(tmp_path):
    def read_files(*files: str, content: bytes = FILM) -> Manifest:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_bytes(content)
        return read_manifest(tmp_path, Etl(format="classes"))

    return read_files


@pytest.mark.parametrize(
    "words",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("TRAINING", "valid", "TESTING"),
        ("trn", "dev", "holdout"),
        ("01_train", "02_val", "test_images"),
        ("Train", "Tune", "tst"),
        ("trainset", "valset", "testset"),
        ("treino", "validação", "teste"),
        ("TrainData", "valimages", "testData2"),
    ],
)
@pytest.mark.parametrize("form", ["{split}/{name}/1.png", "{name}/{split}/1.png"])
def test_folders_of_splits_are_understood_in_any_known_word(read, words, form):
    manifest = read(*(form.format(split=split, name=name) for split in words for name in ("Ill", "Well")))
    assert manifest.findings == ["Ill", "Well"]
    train, val, test = words
    expected = {train: "train", val: "val", test: "test"}
    at = form.split("/").index("{split}")
    images = manifest.images
    assert images.split.tolist() == [expected[image.split("/")[at]] for image in images.image_id]
    assert manifest.notes[0].endswith("the classes are Ill, Well")
    assert f"{train} (train)" in manifest.notes[1]
    assert manifest.notes[2:] == [NO_PATIENTS]


def test_folders_without_splits_are_classes(read):
    manifest = read("Ill/1.png", "Ill/deep/er/2.png", "Well/1.png")
    assert manifest.findings == ["Ill", "Well"]
    assert manifest.notes == ["the folders are CLASS/image; the classes are Ill, Well", NEITHER]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["train/A/1.png", "test/A/1.png", "chest_xray/train/A/1.png"],
            "splits test, train beside .* none: chest_xray",
        ),
        (["train/A/1.png", "Normal/1.png"], "the splits train beside folders that are none: Normal"),
        (["data/train/A/1.png", "data/test/B/1.png"], r"one folder, with the splits test, train: give .*data as"),
        (["A/train/1.png", "A/more/1.png", "B/train/1.png"], "more/1.png is not in a folder of the layout CLASS/SPLIT"),
        (["A/1.png", "B/1.png", "1.png"], "/1.png is not in a folder of the layout CLASS/image"),
        (["train/1.png", "train/A/1.png", "test/A/1.png"], "train/1.png is not in a folder of the layout SPLIT/CLASS"),
        (
            ["images/1.png", "masks/1.png"],
            "the folder 'images' where a class is expected .* called after what it holds",
        ),
        (["A/1.png", "A/2.png"], r"2 images in 1 class \(A\), expected at least two"),
        (["covid_train/A/1.png", "covid_test/A/1.png"], "the folder 'covid_test' where .* resembles that of a split"),
        (
            ["fold0/A/1.png", "fold1/A/1.png"],
            "the folder 'fold0' where a class is expected .* resembles that of a split",
        ),
        (["A/images/train/1.png", "B/images/test/1.png"], "is in a folder of a split, 'train', at another level"),
        (
            ["x/train/A/1.png", "x/train/B/1.png", "y/test/A/1.png", "y/test/B/2.png"],
            "hold the same folders A, B, as if these were the classes",
        ),
        (["H1/Ill/1.png", "H1/Well/2.png", "H2/Ill/3.png", "H2/Well/4.png"], "hold the same folders Ill, Well, as if"),
        *(
            ([f"{top}/{name}/1.png" for top in tops for name in names], "as if these were the classes. If they are, ")
            for tops, names in (
                (("Berlin", "Paris"), ("COVID-19", "Normal")),
                (("Berlin", "Paris"), ("COVID19", "COVID20", "N")),
                (("derivation", "external"), ("COVID19", "N")),
                (("frontal", "lateral"), ("COVID19", "N")),
                (("cv1/train", "cv1/test", "cv2/train", "cv2/test"), ("COVID19", "B")),
                (("A", "B"), ("x", "y")),
            )
        ),
        (["H1/COVID-19/1.png", "H1/Flu/1.png", "H2/covid19/1.png", "H2/FLU/1.png"], "hold the same folders COVID-19,"),
        (["TB/1.png", "Normal/1.png", "ground_truth/1.png"], "'ground_truth' where .* called after what it holds"),
        (["CXR/1.png", "GroundTruth/1.png"], "'GroundTruth' where .* called after what it holds"),
        (["CXR/a1.png", "segmented/a1.png"], "'segmented' where a class .* same names as another one"),
        (["A/1.png", "A_mask/1.png", "B/1.png", "B_mask/1.png"], "'A_mask' where .* seem to be masks of the others"),
        (["A/1.png", "B/1.png", "segmentations/1.png"], "'segmentations' where .* called after what it holds"),
        (["CXR_png/1.png", "ManualMask/1.png"], "'ManualMask' where .* its images seem to be masks of the others"),
    ],
)
def test_folders_that_cannot_be_understood_are_refused(read, files, message):
    with pytest.raises(InputError, match=message):
        read(*files)


def test_a_folder_without_images_is_refused(read):
    with pytest.raises(InputError, match="no image among the 1 file below"):
        read("A/notes.txt", content=b"text")


def test_rests_of_archives_and_hidden_files_are_left_out_and_counted(read):
    manifest = read("train/A/1.png", "test/B/1.png", "__MACOSX/train/A/._1.png", "train/A/._1.png", ".DS_Store")
    assert manifest.left_out == {"hidden": 2, "in __MACOSX": 1}
    assert manifest.findings == ["A", "B"]


@pytest.mark.parametrize(
    "mask",
    [
        "A/masks/1.png",
        "A/lung masks/1.png",
        "A/1_mask.png",
        "A/1-seg.png",
        "A/Mask/1.png",
        "A/1_lung_mask.png",
        "A/mask_1.png",
    ],
)
def test_masks_beside_images_are_left_out_and_counted(read, mask):
    manifest = read("A/images/1.png", "B/images/2.png", mask)
    assert manifest.images.image_id.tolist() == ["A/images/1.png", "B/images/2.png"]
    assert manifest.left_out == {".png, a mask, overlay or thumbnail of an image": 1}


def test_masks_below_the_splits_of_all_classes_are_left_out(read):
    manifest = read(*(f"{one}/train/{kind}/1.png" for one in ("A", "B") for kind in ("images", "masks")))
    assert manifest.images.image_id.tolist() == ["A/train/images/1.png", "B/train/images/1.png"]
    assert manifest.left_out == {".png, a mask, overlay or thumbnail of an image": 2}


def test_classes_of_people_with_masks_are_classes(read):
    manifest = read("train/with_mask/1-with-mask.png", "train/mask/1.png", "test/without_mask/2_mask.png")
    assert manifest.findings == ["mask", "with_mask", "without_mask"]
    assert not manifest.left_out


@pytest.mark.parametrize(
    "mask",
    ["0.mask", "0_mask_left", "0_mask1", "0_lungmask", "0_leftMask", "seg_0", "0_gt", "mask0"]
    + ["0_msk", "0_cam", "0_annotated", "0_left_lung", "0_GroundTruth", "ground_truth_0", "0 roi"],
)
def test_masks_have_many_names(read, mask):
    manifest = read("A/0.png", "B/0.png", f"A/{mask}.png", "A/leftMask/0.png", "B/annotations/0.png")
    assert manifest.images.image_id.tolist() == ["A/0.png", "B/0.png"]


@pytest.mark.parametrize(
    "made",
    [
        *("A/ground_truth/0.png", "A/groundtruth/x.png", "A/GroundTruth/0.png", "A/ground truth/0.png"),
        *("A/overlay/0.png", "A/Overlays/0.png", "A/gradcam/0.png", "A/GradCAM/x.png", "A/grad-cam/0.png"),
        *("A/bounding_boxes/0.png", "A/boundingBox/0.png", "A/bboxes/0.png", "A/thumbnails/0.png", "A/thumbs/0.png"),
        *("A/preview/0.png", "A/previews/0.png", "A/heat_maps/0.png", "A/saliency/0.png", "A/contours/0.png"),
        *("A/0_overlay.png", "A/0_grad_cam.png", "A/0-thumbnail.png", "A/0_bounding_box.png", "A/heat_map_0.png"),
    ],
)
def test_what_programs_make_of_images_is_left_out_below_a_class_and_no_class(read, made):
    manifest = read("A/0.png", "B/0.png", made)
    assert manifest.images.image_id.tolist() == ["A/0.png", "B/0.png"]
    assert manifest.left_out == {".png, a mask, overlay or thumbnail of an image": 1}
    folder = made.split("/")[1]
    if folder.endswith(".png"):
        return
    with pytest.raises(InputError, match=f"the folder '{folder}' where a class is expected"):
        read(f"{folder}/0.png")


@pytest.mark.parametrize(
    "marks", [("card.json", "card.html"), ("card.json", "mlflow.db"), ("card.json", "summary.json")]
)
def test_a_workspace_below_the_source_is_no_class(read, marks):
    read("A/1.png", "B/1.png", "runs/one/figures/loss.png", "runs/one/model/int8/1.png")
    read(*(f"runs/one/{mark}" for mark in marks), content=b"text")
    manifest = read("A/card.json", "B/card.html", content=b"text")
    assert manifest.findings == ["A", "B"]
    assert sum(manifest.left_out.values()) == 4 + len(marks)
    assert manifest.left_out == {"in a workspace": 2 + len(marks), ".json, no image": 1, ".html, no image": 1}
    assert not any("runs" in note for note in manifest.notes)


def test_a_database_that_mlflow_left_behind_makes_no_workspace(read):
    read("train/A/1.png", "train/B/1.png", "val/A/2.png", "val/B/2.png")
    manifest = read("val/mlflow.db", content=b"text")
    assert len(manifest.images) == 4


def test_folders_of_films_and_boxes_are_what_they_were(read):
    names = ["A/cam1/1.png", "A/boxes/1.png", "A/grad/1.png", "A/overlying/1.png", "B/heat/1.png"]
    assert read(*names).images.image_id.tolist() == sorted(names)


@pytest.mark.parametrize("made", ["A/roi/0.png", "A/segmented/0.png", "A/left lung/0.png", "A/cam/x/0.png"])
def test_a_folder_with_a_doubtful_name_is_left_out_if_it_holds_the_names_of_films(read, made):
    manifest = read("A/images/0.png", "B/images/0.png", made)
    assert manifest.images.image_id.tolist() == ["A/images/0.png", "B/images/0.png"]


@pytest.mark.parametrize("film", ["A/roi/5.png", "A/lung/5.png", "A/heart_5.png", "A/0_lung_7.png", "A/cam2.png"])
def test_films_with_a_doubtful_name_of_which_there_is_no_other_are_films(read, film):
    assert film in set(read("A/0.png", "B/0.png", film).images.image_id)
    assert not read("A/1.png").left_out


SAME = "the folders of the classes hold the same folders "


@pytest.mark.parametrize(
    ("names", "note"),
    [("12", SAME + "1, 2: if"), (("p1", "p2"), SAME + "p1, p2: if"), (("Stage 0", "Stage 1"), SAME + "Stage 0, Stage")],
)
def test_folders_of_numbers_may_be_alike_in_every_class_and_are_said(read, names, note):
    manifest = read(*(f"{name}/{number}/1.png" for name in "AB" for number in names))
    assert manifest.findings == ["A", "B"]
    assert manifest.notes[-1].startswith(note)


def test_of_many_patients_in_every_class_few_are_shown(read):
    notes = read(*(f"{name}/{number:02}/1.png" for name in "AB" for number in range(30))).notes
    assert "hold the same folders 00, 01, 02, 03, 04 and 25 more: if" in notes[-1]


@pytest.mark.parametrize("names", [("AP", "PA"), ("left", "right"), ("frontal", "lateral"), ("female", "male")])
def test_views_sides_and_sexes_below_every_class_are_no_classes(read, names):
    manifest = read(*(f"{top}/{name}/1.png" for top in "AB" for name in names))
    assert manifest.findings == ["A", "B"]
    assert not any(note.startswith(SAME) for note in manifest.notes)


@pytest.mark.parametrize(
    "paths", ["A/3fa2c1/{}.png B/3fa2c1/{}.png A/9bd0/{}.png B/9bd0/{}.png", "CAM/{}.png ILO/{}.png"]
)
def test_classes_whose_folders_or_files_are_alike_by_chance_are_read(read, paths):
    assert len(read(*(path.format(number) for path in paths.split() for number in "12")).findings) == 2


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (
            ["A/images", "A/fields", "B/images", "B/fields"],
            "the files of A/images have the same names as those of A/fi",
        ),
        (
            ["A/cxr", "A/fields", "B/cxr"],
            "the files of A/fields have the same names as those of A/cxr, and all are read",
        ),
        (["A/train/x", "A/train/y", "B/test/x"], "the files of A/train/y have the same names as those of A/train/x"),
        (["A/Smith", "A/Jones", "A/Mora", "A/Ito", "B/Berg"], ""),
        (["A/p1", "A/p2", "B/p3"], ""),
        (["A/x", "B/y"], ""),
    ],
)
def test_folders_below_a_class_with_files_of_the_same_names_are_said(read, folders, said):
    notes = read(*(f"{folder}/{number}.png" for folder in folders for number in range(3))).notes
    assert [note.startswith(said) for note in notes if "read as films" in note] == [True] * bool(said)


def test_folders_below_a_class_with_files_of_other_names_are_not_said(read):
    notes = read("A/x/1.png", "A/x/2.png", "A/y/2.png", "A/y/3.png", "B/x/7.png").notes
    assert not any("read as films" in note for note in notes)


@pytest.mark.parametrize(
    "folders",
    [
        ["internal/A", "internal/B", "external/A"],
        ["H/Ill", "H/Well", "K/Ill", "L/Well"],
        ["internal/train/A", "internal/train/B", "external/test/A"],
        ["covid_here/Ill", "covid_here/Well", "covid_there/Ill"],
        ["here/PA", "here/Ill", "there/PA"],
        ["internal/COVID19", "internal/Normal", "external/Normal"],
        ["H/Ill", "H/Well", "H/TB", "K/Ill", "K/Well", "K/Flu"],
        ["H/Ill", "H/Well", "K/Ill", "K/Well", "H"],
        ["train/H/COVID19", "train/H/Well", "train/K/COVID19", "test/K/Well"],
        ["Spain/H/COVID19", "Spain/H/Well", "Italy/K/COVID19", "Italy/K/Well"],
    ],
)
def test_folders_below_classes_of_which_one_has_them_all_are_said(read, folders):
    notes = read(*(f"{folder}/1.png" for folder in folders)).notes
    assert any("if these are the classes, move the images of each into one folder" in note for note in notes)


@pytest.mark.parametrize(
    "folders",
    [
        ["A/PA", "A/AP", "B/PA"],
        ["A/left", "A/Right", "B/left"],
        ["A/female", "A/male", "B/male"],
        ["A/original", "A/augmented", "B/original"],
        ["NORMAL/here", "NORMAL/there", "Viral Pneumonia/there"],
        ["A/1", "A/2", "B/1"],
        ["A/x", "A/y", "B/x", "B/z"],
        ["A/x", "B/x"],
        ["A/images", "A/masks", "B/images"],
    ],
)
def test_classes_with_folders_of_their_own_are_classes(read, folders):
    manifest = read(*(f"{folder}/1.png" for folder in folders))
    assert manifest.findings == sorted({folder.split("/")[0] for folder in folders})


def test_of_many_classes_twenty_are_shown(read):
    names = [f"c{number:03}" for number in range(60)]
    manifest = read(*(f"{name}/1.png" for name in names[:30]))
    assert manifest.notes[0].endswith("c018, c019 and 10 more")
    read_more = read(*(f"{name}/x.txt" for name in names[30:]), content=b"x")
    assert "no image is in the folders c030, " in read_more.notes[-1]
    assert "c049 and 10 more, which are no classes" in read_more.notes[-1]
    with pytest.raises(InputError, match=r"beside folders that are none: c000, .*c019 and 10 more\. Move"):
        read("train/c000/1.png")


def test_what_servers_and_windows_leave_behind_is_left_out(read):
    manifest = read(
        "A/1.png", "B/1.png", "A/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/x.png", "$RECYCLE.BIN/y.png"
    )
    assert manifest.findings == ["A", "B"]
    assert manifest.left_out == {"in @eaDir": 1, "in #recycle": 1, "in $RECYCLE.BIN": 1}


def test_a_folder_that_is_a_link_to_another_one_is_said(read, tmp_path):
    (tmp_path / "A").mkdir()
    (tmp_path / "C").symlink_to(tmp_path / "A")
    manifest = read("A/1.png", "B/1.png")
    assert manifest.findings == ["A", "B"]
    assert "1 folder has another name by a link, such as 'C': its files are read as 'A'" in manifest.notes


def test_a_class_that_is_a_link_into_a_hidden_folder_is_a_class(read, tmp_path):
    (tmp_path / "C").symlink_to(tmp_path / ".cache" / "C")
    manifest = read("A/1.png", "B/1.png", ".cache/C/1.png", ".cache/index")
    assert manifest.findings == ["A", "B", "C"]
    assert manifest.left_out == {"hidden": 1}
    assert "1 folder has another name by a link, such as '.cache/C': its files are read as 'C'" in manifest.notes


def test_the_content_decides_for_other_endings(read, tmp_path):
    (tmp_path / "B").mkdir()
    (tmp_path / "B" / "IM0001").write_bytes(FILM)
    (tmp_path / "C").mkdir()
    (tmp_path / "C" / "film.gif").write_bytes(b"GIF89a")
    (tmp_path / "C" / "1.2.840.7").write_bytes(b"neither")
    manifest = read("A/1.png")
    assert manifest.images.image_id.tolist() == ["A/1.png", "B/IM0001"]
    assert manifest.left_out == {"without ending, no image": 1, ".gif, a GIF image, which is not read": 1}
    assert manifest.notes[-1] == "no image is in the folders C, which are no classes therefore"


@pytest.mark.parametrize("kind", [kind for kind in OTHERS if not kind.endswith("html")])
def test_volumes_archives_and_other_kinds_are_left_out_with_what_they_are(read, kind):
    read("A/1.png", "B/1.png")
    content, name = OTHERS[kind]
    manifest = read(f"B/2.{kind}", content=content)
    ((left_out, number),) = manifest.left_out.items()
    assert name in left_out and left_out.endswith(", which is not read") and number == 1
    assert len(manifest.images) == 2


@pytest.mark.parametrize("ending", [".txt", ".db", ".md", ".csv", ".json", ".html"])
def test_texts_and_tables_are_not_opened(read, ending):
    # Beside 100,000 images in a store, opening as many reports would take minutes.
    manifest = read("A/1.png", "B/1.png", f"A/1{ending}")
    assert manifest.left_out == {f"{ending}, no image": 1}


def test_files_of_a_store_are_opened_several_at_a_time(monkeypatch):
    store, opened = fsspec.filesystem("memory"), []
    together = threading.Barrier(4, timeout=20)

    def read(address: str, limit: int) -> bytes:
        opened.append((address, limit))
        together.wait()
        return store.cat_file(address)[:limit]

    monkeypatch.setattr(class_folder, "read_bytes", read)
    store.pipe({f"/classes/{name}": FILM for name in ("A/1.png", "A/2.raw", "A/3", "B/4.x", "B/5.y")})
    try:
        manifest = read_manifest(locate("memory://classes"), Etl(format="classes"))
    finally:
        store.rm("/classes", recursive=True)
    assert len(manifest.images) == 5
    assert sorted(opened) == [
        (f"memory:///classes/{name}", HEAD_BYTES) for name in ("A/2.raw", "A/3", "B/4.x", "B/5.y")
    ]


@pytest.mark.parametrize("files", [["Cat/1.png", "cat/2.png", "dog/3.png"], ["train/Cat/1.png", "test/cat/3.png"]])
def test_two_folders_of_one_class_are_refused_at_the_start(read, files):
    with pytest.raises(InputError, match=r"'Cat' and 'cat' differ only by case.*: rename one in .*class folders"):
        read(*files)
