import os

import numpy as np

from inference.files.image_files import find_images
from tests.conftest import png


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
