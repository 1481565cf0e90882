import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from inference.files.image_files import find_images
from tests.conftest import png

FILM = png(np.zeros((2, 2), np.uint8))


def test_folders_are_searched_by_name_and_content(tmp_path):
    """Through a link to another folder, and not for ever through one that leads back."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    image = png(np.zeros((2, 2), np.uint8))
    for path in (root / "b" / "2.png", root / "1.bin", tmp_path / "elsewhere" / "3.JPG"):
        path.write_bytes(image)
    (root / "labels.csv").write_text("image,label")
    (root / "__MACOSX").mkdir()
    for name in (".hidden.png", "__MACOSX/._2.png"):
        (root / name).write_bytes(image)
    (root / "broken.tif").write_text("not an image")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "back").symlink_to(root)
    files, others = find_images([str(root), str(root / "labels.csv")])
    assert [os.path.relpath(file.path, root) for file in files] == [
        "1.bin",
        "broken.tif",
        "b/2.png",
        "c/3.JPG",
        "labels.csv",
    ]
    assert others == 3
    assert not any(file.fault for file in files)


def test_what_is_named_an_image_in_a_folder_and_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.dcm").symlink_to("nowhere")
    files, _ = find_images([str(tmp_path)])
    assert [file.fault for file in files] == ["no such file or folder", "not a file"]


def test_a_link_into_a_hidden_folder_is_read_under_its_own_name(tmp_path):
    (tmp_path / ".cache" / "C").mkdir(parents=True)
    for name in (".cache/C/1.png", ".cache/2.png"):
        (tmp_path / name).write_bytes(FILM)
    (tmp_path / "C").symlink_to(tmp_path / ".cache" / "C")
    files, others = find_images([str(tmp_path)])
    assert ([file.path for file in files], others) == ([str(tmp_path / "C" / "1.png")], 1)
    # A folder that was given is read, whatever its own name is.
    files, others = find_images([str(tmp_path / ".cache")])
    assert (len(files), others) == (2, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_may_not_be_read_is_reported_and_the_others_are_read():
    # Nobody may enter pytest's own folder.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        check_reported(Path(folder))


def check_reported(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "c/3.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(FILM)
    os.chmod(tmp_path / "b", 0o700)
    os.seteuid(65534)
    try:
        files, _ = find_images([str(tmp_path)])
    finally:
        os.seteuid(0)
    assert [(os.path.relpath(file.path, tmp_path), file.fault) for file in files] == [
        ("b", "this folder cannot be read: Permission denied"),
        ("a/1.png", None),
        ("c/3.png", None),
    ]


def test_a_workspace_in_a_folder_and_what_is_to_be_left_out_are_counted_as_other_files(tmp_path):
    names = [
        "a/1.png",
        "run/figures/2.png",
        "run/mlflow.db",
        "run/card.json",
        "film.png-heatmap-03fb11a2c9-Mass.png",
        "table/_delta_log/6.png",
        "maps/3.png",
        "maps/deeper/4.png",
        "mapsake/5.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(FILM)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "maps")
    (tmp_path / "b").symlink_to(tmp_path / "maps" / "3.png")
    files, others = find_images([str(tmp_path)], str(tmp_path / "maps"))
    assert [os.path.relpath(file.path, tmp_path) for file in files] == ["b", "a/1.png", "mapsake/5.png"]
    assert others == 7
    # What was given is read.
    for given in ("maps/3.png", "maps/deeper", "run/figures", "film.png-heatmap-03fb11a2c9-Mass.png"):
        files, others = find_images([str(tmp_path / given)], str(tmp_path / "maps"))
        assert (len(files), others) == (1, 0)
