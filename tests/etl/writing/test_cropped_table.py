"""A table of crops, from the films to its rows, its card and its next version."""

import shutil

import numpy as np
import pytest

from conf.settings import Etl
from conf.workspace import Workspace
from etl.card.counts import describe_whole
from etl.contract.images.lungs.crop import Crop, boxes_of_crop
from etl.contract.images.lungs.files import describe_network
from etl.phantoms.film import render
from etl.phantoms.generate import BOX_HEADER
from etl.writing.housekeeping import maintain
from tests.conftest import InlineWorkers, NihFolder, files_of, png
from tests.etl.lung_networks import write_network
from tests.etl.tables import add, film, rows_of, run

BOXED = "00000001_000.png"
LUNGS = {"crop": "lungs", "crop_margin": 0.1}


@pytest.fixture
def folder(tmp_path) -> NihFolder:
    """Eight patients with two phantoms each, the last of which is noise."""
    folder = NihFolder(tmp_path / "nih", num_patients=8)
    for name, *_ in folder.rows[:-1]:
        patient, follow_up = int(name[:8]), int(name[9:12])
        folder.put(name, png(render((0, patient, follow_up), False, False, (), 128)[0]))
    folder.put(folder.rows[-1][0], film(1, 128))
    (folder.root / "BBox_List_2017.csv").write_text(f"{BOX_HEADER}\n{BOXED},Mass,256,512,128,64,,,\n")
    return folder


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def test_rows_say_where_they_lie_in_their_films(folder, workspace):
    card = run(folder, workspace, **LUNGS).card
    rows = rows_of(workspace, card)
    noise = folder.rows[-1][0]
    assert rows.crop[noise] is None and rows.crop.drop(noise).notna().all()
    assert card.kept_whole == {split: int(split == rows.split[noise]) for split in ("train", "val", "test")}
    assert describe_whole(card.kept_whole, card.images) == "1 of 16 films kept whole: no lung field found"
    crop = Crop(*rows.crop[BOXED])
    assert (crop.film_width, crop.film_height) == (128, 128) and crop.width < 128
    finding, *box = rows.boxes[BOXED]
    np.testing.assert_allclose(boxes_of_crop(box, crop, "pad"), [[0.25, 0.5, 0.125, 0.0625]], atol=1e-6)
    assert card.findings[int(finding)] == "Mass"


def test_a_table_of_whole_films_has_no_column_of_crops(folder, workspace):
    outcome = run(folder, workspace)
    assert "crop" not in rows_of(workspace, outcome.card) and outcome.card.kept_whole == {}


def test_crops_stay_through_updates_and_housekeeping(folder, workspace):
    first = run(folder, workspace, **LUNGS)
    before = rows_of(workspace, first.card)
    assert not run(folder, workspace, **LUNGS).committed
    # The row beside the one that goes is copied with its box; nothing is decoded again.
    folder.rows = [row for row in folder.rows if row[0] != "00000001_001.png"]
    folder.write_lists()
    second = run(folder, workspace, **LUNGS)
    assert second.counts == {"new": 0, "changed": 0, "relabelled": 0, "removed": 1}
    kept = rows_of(workspace, second.card)
    for column in ("crop", "boxes", "image_64"):
        assert all(map(np.array_equal, kept[column], before[column][kept.index])), column
    # Housekeeping joins files; the settings given to it are another scenario's.
    add(folder, 9, 0, png(render((0, 9, 0), False, False, (), 128)[0]))
    run(folder, workspace, **LUNGS)
    done = maintain(workspace.tables(""), Etl(), set(), 0, InlineWorkers())
    assert done.joined
    joined = rows_of(workspace, done.card).loc[kept.index]
    assert all(map(np.array_equal, joined.crop, kept.crop)) and all(map(np.array_equal, joined.boxes, kept.boxes))
    assert not run(folder, workspace, **LUNGS).committed


def test_a_changed_crop_makes_the_table_anew(folder, workspace):
    first = run(folder, workspace, **LUNGS)
    second = run(folder, workspace, **{**LUNGS, "crop_margin": 0.2})
    assert second.counts["new"] == 16 and not files_of(workspace, 0) & files_of(workspace, 1)
    assert (
        Crop(*rows_of(workspace, second.card).crop[BOXED]).width
        > Crop(*rows_of(workspace, first.card).crop[BOXED]).width
    )


def test_a_table_cropped_by_a_network_names_it_wherever_it_lies(folder, workspace, tmp_path):
    network, moved = write_network(tmp_path / "network", 64), tmp_path / "moved"
    by_network = {**LUNGS, "lungs": str(network)}
    card = run(folder, workspace, **by_network).card
    assert card.lungs == describe_network(str(network))
    crops = rows_of(workspace, card).crop
    shutil.move(network, moved)
    assert not run(folder, workspace, **{**LUNGS, "lungs": str(moved)}).committed
    other = write_network(tmp_path / "other", 128)
    second = run(folder, workspace, **{**LUNGS, "lungs": str(other)})
    assert second.counts["new"] == 16 and second.card.lungs["size_px"] == 128 and crops.notna().any()
