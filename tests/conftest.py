"""Shared by all tests: one Spark session, NIH-format folders made in memory, a small table and its card."""

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

LABEL_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
SAMPLE_VARIABLE = "CHEXSCALE_NIH_SAMPLE"


@pytest.fixture(scope="session")
def spark():
    from etl.shards import start_spark

    session = start_spark()
    yield session
    session.stop()


@pytest.fixture(scope="session")
def nih_sample() -> Path:
    """Real ChestX-ray14 files; the test is skipped where the variable does not name them."""
    folder = os.environ.get(SAMPLE_VARIABLE)
    if not folder:
        pytest.skip(f"{SAMPLE_VARIABLE} does not name a folder with real ChestX-ray14 files")
    return Path(folder)


class NihFolder:
    """A small folder in NIH's layout: patients 1..num_patients with two images each, every fourth patient on the test
    list, odd patients with an Effusion in their second image."""

    def __init__(self, root: Path, num_patients: int = 24, size_px: int = 64):
        self.root = root
        self.rows: list[list[str]] = []
        (root / "images").mkdir(parents=True)
        rng = np.random.default_rng(0)
        for patient in range(1, num_patients + 1):
            for follow_up in range(2):
                name = f"{patient:08d}_{follow_up:03d}.png"
                finding = "Effusion|Mass" if patient % 2 and follow_up else "No Finding"
                sex = "F" if patient % 3 else "M"
                self.rows.append([name, finding, str(follow_up), str(patient), "58", sex, "PA", "64", "64", "1", "1"])
                self.put(name, png(rng.integers(0, 256, (size_px, size_px), dtype=np.uint8)))
        self.test = [row[0] for row in self.rows if int(row[3]) % 4 == 0]
        self.train_val = [row[0] for row in self.rows if int(row[3]) % 4]
        self.write_lists()

    def put(self, name: str, content: bytes) -> None:
        (self.root / "images" / name).write_bytes(content)

    def write_lists(self) -> None:
        with (self.root / "Data_Entry_2017_v2020.csv").open("w", newline="") as file:
            file.write(LABEL_HEADER + "\n")
            csv.writer(file, lineterminator="\n").writerows(self.rows)
        (self.root / "train_val_list.txt").write_text("\n".join(self.train_val))
        (self.root / "test_list.txt").write_text("\n".join(self.test))


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.fixture
def nih_folder(tmp_path) -> NihFolder:
    return NihFolder(tmp_path / "nih")
