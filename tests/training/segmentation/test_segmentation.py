"""The network that finds lungs, on small films whose lungs are two dark blocks."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from conf.errors import InputError
from conf.settings import Lungs, Settings
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from tests.etl.lung_networks import SIZE_PX, table_with_masks
from training.network.lung_network import LungNetwork, load_network
from training.reading.augment import augment, draw_changes
from training.segmentation.loop import measure, moved, segmentation_loss, torch_predict, vary_greys
from training.segmentation.reading import Films, check_masks, read_films
from training.segmentation.run import run


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, new_store) -> Workspace:
    return table_with_masks(tmp_path_factory.mktemp("lungs"), new_store)


def test_the_loss_falls_to_nothing_where_field_and_mask_agree():
    masks = torch.zeros(2, 8, 8)
    masks[:, 2:6, 2:6] = 1
    losses = [float(segmentation_loss(scale * (masks * 2 - 1), masks)) for scale in (-20, 0, 1, 20)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-3
    assert float(segmentation_loss(torch.full((1, 8, 8), -20.0), torch.zeros(1, 8, 8))) < 1e-3


def test_a_mask_moves_with_its_film():
    film = torch.zeros(4, 32, 32, dtype=torch.uint8)
    film[:, 8:20, 10:24] = 255
    draws = draw_changes(4, seed=3)
    draws[:, 4] = 0
    np.testing.assert_allclose(moved(film.float() / 255, draws), augment(film, draws) / 255, atol=1e-4)


def test_each_film_gets_other_greys_and_a_seed_the_same_again():
    film = torch.linspace(0, 255, 32).repeat(4, 32, 1)
    changed = vary_greys(film, seed=3)
    assert torch.equal(changed, vary_greys(film, seed=3)) and not torch.equal(changed, vary_greys(film, seed=4))
    assert changed.min() >= 0 and changed.max() <= 255
    assert len(set(changed.mean(dim=(1, 2)).round().tolist())) == 4
    # What was darker stays darker, but for the noise.
    assert all(torch.corrcoef(torch.stack([one.mean(dim=0), film[0, 0]]))[0, 1] > 0.9 for one in changed)


def test_films_without_a_mask_are_left_out_and_no_batch_has_a_single_film(workspace):
    table = TableVersion.of(workspace)
    for batch_size in (2, 3, 5, 100):
        batches = list(read_films(table, "train", SIZE_PX, batch_size, np.random.default_rng(0)))
        sizes = [len(batch.pixels) for batch in batches]
        assert sum(sizes) == table.card.masks["images"]["train"] and min(sizes) >= 2 and max(sizes) <= batch_size + 1
    (small,) = read_films(table, "test", 32, 100)
    assert small.pixels.shape == small.masks.shape == (len(small.patients), 32, 32)
    assert small.pixels[small.masks == 1].mean() < 70 < 160 < small.pixels[small.masks == 0].mean()


def test_overlap_is_the_share_of_common_pixels():
    masks = np.zeros((2, 4, 4), np.float32)
    masks[:, :2] = 1
    logits = np.full((2, 4, 4), -1.0)
    logits[0, :2, :2] = 1
    films = Films(np.zeros((2, 4, 4), np.uint8), masks, ["a", "b"])
    overlaps, patients = measure(lambda _: logits, [films])
    assert overlaps.tolist() == [0.5, 0.0] and patients == ["a", "b"]


@pytest.mark.slow
def test_the_network_learns_where_the_lungs_are(workspace, capsys):
    settings = Settings(str(workspace.root), lungs=Lungs(size_px=SIZE_PX, epochs=15, batch_size=6))
    run(settings, workspace)
    report = json.loads((workspace.lungs / "report.json").read_text())
    assert report["splits"]["test"]["iou"] > 0.85 and report["splits"]["test"]["films"] == 12
    low, high = report["splits"]["test"]["interval"]
    assert low <= report["splits"]["test"]["iou"] <= high
    said = capsys.readouterr().out
    assert "IoU on the test split, 12 films" in said and "Next: python inference/lungs.py" in said
    network, about = load_network(workspace.lungs / "network.pt")
    assert about["size_px"] == SIZE_PX and about["run_id"] == report["run_id"]
    overlaps, _ = measure(torch_predict(network), read_films(TableVersion.of(workspace), "test", SIZE_PX, 5))
    assert overlaps.mean() == pytest.approx(report["splits"]["test"]["iou"])
    harder = [
        replace(films, pixels=(255 * (films.pixels / 255) ** 2).astype(np.uint8))
        for films in read_films(TableVersion.of(workspace), "test", SIZE_PX, 5)
    ]
    assert measure(torch_predict(network), harder)[0].mean() > 0.8


def test_a_file_that_is_no_network_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no lung network at .*: run `python training/lungs.py`"):
        load_network(tmp_path / "network.pt")
    for content in (b"", b"no network"):
        (tmp_path / "network.pt").write_bytes(content)
        with pytest.raises(InputError, match=r"is no lung network .*: run `python training/lungs.py` again"):
            load_network(tmp_path / "network.pt")
    torch.save({"format": 0, "weights": LungNetwork(0, 1).state_dict(), "about": {}}, tmp_path / "network.pt")
    with pytest.raises(InputError, match="format 0, expected 1"):
        load_network(tmp_path / "network.pt")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"masks": {}}, "the train split of .* has 0 masks, and the network needs 2 in each: name a folder"),
        ({"masks": {"images": {"train": 9, "val": 9, "test": 1}}}, "the test split of .* has 1 masks"),
        ({"settings": {"crop": "lungs"}}, "are cropped"),
        ({"settings": {"intensity": "clahe"}}, "were adjusted"),
        ({"channels": 3}, "are in colour"),
    ],
)
def test_a_table_that_cannot_train_it_is_refused(workspace, changes, why):
    with pytest.raises(InputError, match=why):
        check_masks(replace(TableVersion.of(workspace).card, **changes))
