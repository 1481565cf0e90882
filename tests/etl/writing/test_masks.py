"""Masks of the lungs, from the user's files to the table's columns and card."""

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from conf.errors import InputError
from conf.settings import Etl, Phantoms
from conf.workspace import Workspace
from etl.contract.images.lungs.crop import Crop
from etl.contract.images.pixels import BadImage
from etl.phantoms.film import render
from etl.phantoms.generate import generate_phantoms
from etl.sources.read import read_manifest
from etl.writing.film_mask import load_masks
from etl.writing.shard_file import Shard, write_shard
from tests.conftest import NihFolder, png
from tests.etl.tables import SMALL, rows_of, run

FIRST, SECOND, THIRD, FOURTH = (f"{patient:08d}_{study:03d}.png" for patient in (1, 2) for study in (0, 1))


@pytest.fixture
def folder(tmp_path) -> NihFolder:
    """Four patients; their masks are white in the film's upper left quarter."""
    folder = NihFolder(tmp_path / "nih", num_patients=4)
    (folder.root / "masks").mkdir()
    for name, *_ in folder.rows:
        put(folder, name, corner(32, 64))
    return folder


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def corner(lung: int, side: int, white: int = 255) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[:lung, :lung] = white
    return mask


def put(folder: NihFolder, name: str, mask: np.ndarray) -> None:
    (folder.root / "masks" / name).write_bytes(png(mask))


def masks_of(rows, size: int) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(mask, np.uint8).reshape(size, size) for name, mask in rows[f"mask_{size}"].items() if mask
    }


def test_each_film_has_its_mask_at_each_size(folder, workspace):
    put(folder, FIRST, corner(16, 32, white=1))
    (folder.root / "masks" / SECOND).unlink()
    left, right = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    left[:32, :16], right[:32, 16:32] = 255, 255
    put(folder, "00000001_001_left_lung.png", left)
    put(folder, "00000001_001_right_lung_mask.png", right)
    card = run(folder, workspace, masks="masks").card
    rows = rows_of(workspace, card)
    for size in SMALL["sizes_px"]:
        for mask in masks_of(rows, size).values():
            np.testing.assert_array_equal(mask, corner(size // 2, size))
    assert rows.mask_fault.isna().all() and sum(card.masks["images"].values()) == 8 and not card.masks["faults"]


def test_what_is_wrong_with_masks_is_counted_and_named(folder, workspace):
    (folder.root / "masks" / FIRST).unlink()
    put(folder, SECOND, np.zeros((64, 64), np.uint8))
    put(folder, THIRD, np.full((64, 80), 255, np.uint8))
    (folder.root / "masks" / FOURTH).write_bytes(b"no image")
    put(folder, "of nobody.png", corner(32, 64))
    outcome = run(folder, workspace, masks="masks")
    rows = rows_of(workspace, outcome.card)
    assert rows.mask_64[[FIRST, SECOND, THIRD, FOURTH]].isna().all()
    assert rows.mask_fault[THIRD] == "mask of other proportions: 80x64 pixels, the film has 64x64"
    faults = outcome.card.masks["faults"]
    kinds = {"no mask file": FIRST, "empty mask": SECOND, "mask of other proportions": THIRD, "damaged mask": FOURTH}
    assert faults == {kind: {"images": 1, "first": first} for kind, first in kinds.items()}
    manifest = read_manifest(folder.root, Etl(masks="masks"))
    assert any("1 file of etl.masks, such as of nobody.png, named no film" in note for note in manifest.notes)


def test_a_changed_mask_is_read_again(folder, workspace):
    run(folder, workspace, masks="masks")
    assert not run(folder, workspace, masks="masks").committed
    put(folder, FIRST, corner(16, 64))
    outcome = run(folder, workspace, masks="masks")
    assert outcome.counts["changed"] == 1
    masks = masks_of(rows_of(workspace, outcome.card), 64)
    np.testing.assert_array_equal(masks[FIRST], corner(16, 64))
    np.testing.assert_array_equal(masks[SECOND], corner(32, 64))


def test_masks_that_are_of_no_use_are_refused(folder, workspace):
    with pytest.raises(InputError, match="no folder of masks at .*nowhere: give one below the source"):
        run(folder, workspace, masks="nowhere")
    for name, *_ in folder.rows:
        put(folder, name, np.zeros((64, 64), np.uint8))
    with pytest.raises(InputError, match="no image has a mask: 8 empty mask .such as 00000001_000.png"):
        run(folder, workspace, masks="masks")
    others = folder.root / "others"
    others.mkdir()
    (others / "x.png").write_bytes(png(corner(32, 64)))
    with pytest.raises(InputError, match="no file below .*others has the name of a film, such as 0000000"):
        run(folder, workspace, masks=str(others))


def test_a_mask_is_cropped_with_its_film(folder, workspace):
    film = render((0, 1, 0), False, False, (), 128)[0]
    folder.put(FIRST, png(film))
    put(folder, FIRST, corner(64, 128))
    rows = rows_of(workspace, run(folder, workspace, masks="masks", crop="lungs").card)
    crop = Crop(*rows.crop[FIRST])
    expected = np.zeros((64, 64), np.uint8)
    side = max(crop.width, crop.height)
    left, top = (side - crop.width) // 2, (side - crop.height) // 2
    scale = 64 / side
    rows_end, columns_end = (round((64 - at + pad) * scale) for at, pad in ((crop.top, top), (crop.left, left)))
    expected[round(top * scale) : rows_end, round(left * scale) : columns_end] = 255
    found = masks_of(rows, 64)[FIRST]
    assert set(np.unique(found)) == {0, 255} and np.mean(found != expected) < 0.02


def test_phantoms_come_with_their_lungs_on_request(tmp_path):
    generate_phantoms(tmp_path / "phantoms", Phantoms(num_images=100, size_px=256, masks=True))
    films = sorted((tmp_path / "phantoms" / "images").iterdir())
    assert [film.name for film in films] == sorted(mask.name for mask in (tmp_path / "phantoms" / "masks").iterdir())
    film, mask = (
        cv2.imread(str(tmp_path / "phantoms" / kind / films[0].name), cv2.IMREAD_GRAYSCALE)
        for kind in ("images", "masks")
    )
    assert set(np.unique(mask)) == {0, 255} and 0.1 < np.mean(mask == 255) < 0.4
    # Lungs are darker than what is around them.
    around = cv2.dilate(mask, np.ones((21, 21))) - mask
    assert film[mask == 255].mean() < film[around == 255].mean() - 10


def test_a_mask_that_could_not_be_read_is_tried_again(folder, workspace, monkeypatch):
    tries = []

    def refuse_the_first(*arguments) -> list[np.ndarray]:
        tries.append(arguments)
        if len(tries) == 1:
            raise BadImage("cannot be read: no permission")
        return load_masks(*arguments)

    monkeypatch.setattr("etl.writing.shard_file.load_masks", refuse_the_first)
    assert run(folder, workspace, masks="masks").card.masks["faults"]["cannot be read"]["images"] == 1
    second = run(folder, workspace, masks="masks")
    assert second.counts["changed"] == 1 and not second.card.masks["faults"]


def test_a_row_of_a_source_without_masks_has_none(folder, tmp_path):
    settings = Etl(**{**SMALL, "masks": "masks"})
    images = read_manifest(folder.root, settings).images.assign(kept_in=None, source="nih")
    images.loc[images.image_id == FIRST, "masks"] = np.nan
    shard = Shard("train", 0, images)
    written = write_shard(shard, str(tmp_path / "table"), "0", settings, 1, {"nih": settings})
    rows = pq.read_table(tmp_path / "table" / written.path).to_pandas().set_index("image_id")
    assert rows.mask_fault.dropna().to_dict() == {FIRST: "no mask file"}
