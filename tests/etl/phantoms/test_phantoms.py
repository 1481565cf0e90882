"""What the phantoms promise: NIH's files, exact boxes, the same bytes every time, a complete folder or none."""

import csv
import hashlib
import json
import multiprocessing
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Etl, Phantoms
from etl.contract.schema import PHANTOM_FINDINGS
from etl.contract.storage import locate
from etl.phantoms import generate as phantoms
from etl.phantoms.cohort import PREVALENCE, draw_cohort
from etl.phantoms.film import render
from etl.phantoms.generate import generate_phantoms
from etl.sources.read import read_manifest

SETTINGS = Phantoms(num_images=100, size_px=256, seed=3)
NIH_LABEL_HEADER = (
    b"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    b"OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n"
)
NIH_BOX_HEADER = b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "phantoms"
    generate_phantoms(folder, SETTINGS)
    return folder


def rows_of(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_have_nihs_names_and_headers(generated):
    assert {path.name for path in generated.iterdir()} == {
        "images",
        "Data_Entry_2017_v2020.csv",
        "BBox_List_2017.csv",
        "train_val_list.txt",
        "test_list.txt",
        "phantoms.json",
    }
    assert (generated / "Data_Entry_2017_v2020.csv").read_bytes().startswith(NIH_LABEL_HEADER)
    assert (generated / "BBox_List_2017.csv").read_bytes().startswith(NIH_BOX_HEADER)


def test_every_listed_image_is_a_square_8_bit_grey_png(generated):
    names = {row[0] for row in rows_of(generated / "Data_Entry_2017_v2020.csv")}
    assert len(names) == SETTINGS.num_images
    assert {path.name for path in (generated / "images").iterdir()} == names
    for name in names:
        film = cv2.imread(str(generated / "images" / name), cv2.IMREAD_UNCHANGED)
        assert film.shape == (256, 256)
        assert film.dtype == np.uint8
        assert film.std() > 20


def test_label_rows_read_like_nihs(generated):
    for row in rows_of(generated / "Data_Entry_2017_v2020.csv"):
        assert len(row) == 11
        name, labels, follow_up, patient, age, sex, view = row[:7]
        assert name == f"{int(patient):08d}_{int(follow_up):03d}.png"
        assert labels == "No Finding" or set(labels.split("|")) <= set(PREVALENCE)
        assert 0 < int(age) <= 95
        assert sex in ("F", "M")
        assert view in ("PA", "AP")


def test_the_vocabulary_of_phantoms_has_the_findings_that_they_show(generated):
    assert tuple(PREVALENCE) == PHANTOM_FINDINGS
    manifest = read_manifest(locate(str(generated)), Etl())
    assert manifest.findings == list(PHANTOM_FINDINGS)
    assert np.stack(manifest.images["findings"].to_numpy()).any(axis=0).all()


def test_lists_split_the_images_by_patient(generated):
    train_val = (generated / "train_val_list.txt").read_text().split()
    test = (generated / "test_list.txt").read_text().split()
    listed = [row[0] for row in rows_of(generated / "Data_Entry_2017_v2020.csv")]
    assert sorted(train_val + test) == sorted(listed)
    assert not {name[:8] for name in train_val} & {name[:8] for name in test}
    assert len(test) == pytest.approx(23, abs=2)


def test_boxes_show_the_findings_of_the_test_list(generated):
    labels = {row[0]: row[1].split("|") for row in rows_of(generated / "Data_Entry_2017_v2020.csv")}
    test = set((generated / "test_list.txt").read_text().split())
    boxes = rows_of(generated / "BBox_List_2017.csv")
    assert all(len(row) == 9 for row in boxes)
    boxed = {(row[0], row[1].replace("Infiltrate", "Infiltration")) for row in boxes}
    assert boxed == {(name, finding) for name in test for finding in labels[name] if finding != "No Finding"}
    assert "Infiltration" not in {row[1] for row in boxes}
    # In pixels of NIH's 1024x1024 films, although these are smaller.
    edges = np.array([row[2:6] for row in boxes], float)
    assert 512 < (edges[:, :2] + edges[:, 2:]).max() <= 1024


def test_boxes_of_all_films_are_listed_on_request(tmp_path):
    generate_phantoms(tmp_path / "phantoms", Phantoms(num_images=100, size_px=256, boxes="all"))
    labels = {row[0]: row[1].split("|") for row in rows_of(tmp_path / "phantoms/Data_Entry_2017_v2020.csv")}
    boxed = {
        (row[0], row[1].replace("Infiltrate", "Infiltration"))
        for row in rows_of(tmp_path / "phantoms/BBox_List_2017.csv")
    }
    assert boxed == {(name, finding) for name, found in labels.items() for finding in found if finding != "No Finding"}


def test_a_large_cohort_is_distributed_as_stated():
    cohort = draw_cohort(seed=0, num_images=10_000)
    counts = Counter(finding for study in cohort for finding in study.findings)
    for finding, share in PREVALENCE.items():
        assert counts[finding] / len(cohort) == pytest.approx(share, rel=0.15)
    studies = Counter(study.patient for study in cohort)
    assert len(cohort) / len(studies) == pytest.approx(3.6, abs=0.3)
    assert sum(study.ap for study in cohort) / len(cohort) == pytest.approx(0.4, abs=0.03)
    both = sum({"Effusion", "Atelectasis"} <= set(study.findings) for study in cohort)
    assert both / len(cohort) > 1.4 * PREVALENCE["Effusion"] * PREVALENCE["Atelectasis"]


def test_the_demo_has_positives_of_every_finding_in_both_lists():
    cohort = draw_cohort(seed=0, num_images=2000)
    for test in (False, True):
        counts = Counter(finding for study in cohort if study.test == test for finding in study.findings)
        assert min(counts[finding] for finding in PREVALENCE) >= 15


@pytest.mark.parametrize("finding", sorted(set(PREVALENCE) - {"Cardiomegaly"}))
def test_boxes_bound_what_the_finding_changed(finding):
    size_px, margin = 512, 6
    for patient in range(6):
        key = (0, patient, 0)
        without, _ = render(key, female=False, ap=False, findings=(), size_px=size_px)
        film, boxes = render(key, female=False, ap=False, findings=(finding,), size_px=size_px)
        change = np.abs(film.astype(int) - without)
        assert boxes, "a label without a lesion"
        seen = change > 0.45 * change.max()
        boxed = np.zeros_like(seen)
        for box in boxes:
            x, y, right, bottom = (round(edge) for edge in (box.x, box.y, box.x + box.width, box.y + box.height))
            boxed[max(0, y - margin) : bottom + margin, max(0, x - margin) : right + margin] = True
            inside = change[y:bottom, x:right] >= 4
            columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
            gaps = (columns[0], box.width - 1 - columns[-1], rows[0], box.height - 1 - rows[-1])
            assert max(gaps) <= margin
        assert not (seen & ~boxed).any()


def test_a_heart_box_bounds_the_enlarged_heart():
    for patient in range(6):
        normal, _ = render((0, patient, 0), False, False, (), 512)
        film, (box,) = render((0, patient, 0), False, False, ("Cardiomegaly",), 512)
        change = np.abs(film.astype(int) - normal) > 25
        columns = np.flatnonzero(change.any(axis=0))
        assert columns.min() >= box.x - 6
        assert columns.max() <= box.x + box.width + 6
        assert columns.max() >= box.x + box.width - 12
        assert 0.25 * 512 < box.width < 0.65 * 512


def test_follow_ups_share_the_anatomy_and_not_the_film():
    first, _ = render((0, 1, 0), False, False, (), 256)
    second, _ = render((0, 1, 1), False, False, (), 256)
    assert not np.array_equal(first, second)
    assert np.array_equal(first, render((0, 1, 0), False, False, (), 256)[0])


def test_the_same_settings_give_the_same_bytes_on_any_number_of_cores(generated, tmp_path, monkeypatch):
    monkeypatch.setattr(phantoms.os, "sched_getaffinity", lambda pid: {0})
    generate_phantoms(tmp_path / "again", SETTINGS)
    assert hashes(tmp_path / "again") == hashes(generated)


def test_a_complete_folder_is_left_alone_and_other_settings_replace_it(tmp_path, monkeypatch):
    written = []

    def write_nothing(folder, settings):
        written.append(settings)

    monkeypatch.setattr(phantoms, "write_films", write_nothing)
    for settings in (SETTINGS, SETTINGS, Phantoms(num_images=101)):
        generate_phantoms(tmp_path / "phantoms", settings)
    assert written == [SETTINGS, Phantoms(num_images=101)]
    assert json.loads((tmp_path / "phantoms" / "phantoms.json").read_text())["num_images"] == 101
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    many = Phantoms(num_images=5000, size_px=256)
    process = multiprocessing.get_context("spawn").Process(target=generate_phantoms, args=(tmp_path / "phantoms", many))
    process.start()
    deadline = time.monotonic() + 60
    films = ".phantoms-building-*/images/*.png"
    while not list(tmp_path.glob(films)):
        assert time.monotonic() < deadline, "no film within a minute"
        time.sleep(0.05)
    process.kill()
    process.join()
    assert not (tmp_path / "phantoms").exists()
    time.sleep(1)
    num_films = len(list(tmp_path.glob(films)))
    time.sleep(0.5)
    assert len(list(tmp_path.glob(films))) == num_films > 0, "the workers outlived their parent"
    monkeypatch.setattr(phantoms, "write_films", lambda folder, settings: None)
    generate_phantoms(tmp_path / "phantoms", SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["phantoms"]


def test_a_folder_that_was_not_generated_is_refused_and_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds files but no phantoms\.json"):
        generate_phantoms(tmp_path, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_by_class_each_film_shows_its_class_alone_and_no_patient_is_in_two_splits(tmp_path):
    settings = replace(SETTINGS, num_images=150, layout="classes")
    generate_phantoms(tmp_path / "phantoms", settings)
    places = [path.relative_to(tmp_path / "phantoms").parts for path in (tmp_path / "phantoms").rglob("*.png")]
    shown = {study.image_id: study.findings or ("No Finding",) for study in draw_cohort(3, 150)}
    assert {(name, folder) for _, folder, name in places} == {(i, f[0]) for i, f in shown.items() if len(f) == 1}
    splits = {}
    for split, _, name in places:
        splits.setdefault(name[:8], set()).add(split)
    assert all(len(seen) == 1 for seen in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}
