"""The lung network from its training to the registry, and in the folder of a model that crops by it."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import Etl, Lungs, Quality, Settings
from etl.contract.images.lungs.files import describe_network
from etl.contract.images.lungs.graph import open_network
from etl.contract.version import TableVersion
from etl.writing.shard_file import load_squares
from inference.candidate.build import copy_network
from inference.candidate.lung_network import run as export
from inference.candidate.model_card import OF_PHANTOMS, limit_of_network
from inference.film.films import load_film
from inference.model.registry import CHAMPION, mlflow, use_store, version_of
from tests.conftest import make_card, png
from tests.etl.lung_networks import SIZE_PX, table_with_masks, write_network
from tests.inference.toy_properties import PROPERTIES
from training.segmentation.loop import measure
from training.segmentation.reading import read_films
from training.segmentation.run import run as train


@pytest.fixture(autouse=True)
def _opened_anew():
    open_network.cache_clear()


@pytest.mark.slow
def test_a_trained_network_is_exported_and_registered_under_its_own_name(tmp_path, new_store, capsys):
    workspace = table_with_masks(tmp_path, new_store)
    lungs = Lungs(size_px=SIZE_PX, epochs=12, batch_size=6, registered_model="toy-lungs")
    settings = Settings(str(workspace.root), lungs=lungs)
    train(settings, workspace)
    export(settings, workspace)
    folder = workspace.lungs / "model"
    about = describe_network(str(folder))
    assert about["precision"] == "int8" and about["overlap"]["int8"]["test"]["iou"] > 0.8
    measured = about["overlap"]["int8"]["test"]
    said, (low, high) = limit_of_network(about), measured["interval"]
    assert f"run {about['run_id']}" in said and f"films with masks of the test split of {about['data']}" in said
    assert f"IoU of {measured['iou']:.3f} [{low:.3f}, {high:.3f}] on average, {measured['lowest']:.3f} at" in said
    assert [OF_PHANTOMS in limit_of_network(about | {"phantoms": only}) for only in (True, False)] == [True, False]
    assert "was not recorded" in limit_of_network(describe_network(str(write_network(tmp_path / "older", SIZE_PX))))
    assert "INT8 is kept" in capsys.readouterr().out
    graph = open_network(str(folder))
    predict = lambda pixels: np.concatenate([graph.request.infer([film[None]])[0] for film in pixels])  # noqa: E731
    overlaps, _ = measure(predict, read_films(TableVersion.of(workspace), "test", SIZE_PX, 8))
    assert overlaps.mean() == pytest.approx(about["overlap"]["int8"]["test"]["iou"], abs=0.005)
    assert version_of(workspace, "toy-lungs", CHAMPION) == 1
    use_store(workspace)
    model = mlflow.pyfunc.load_model("models:/toy-lungs@champion")
    logits = model.predict(np.zeros((2, SIZE_PX, SIZE_PX), np.uint8))
    assert logits.shape == (2, SIZE_PX, SIZE_PX)


def film_with_lungs() -> bytes:
    film = np.full((200, 240), 200, np.uint8)
    film[60:160, 40:90], film[60:160, 140:190] = 50, 50
    return png(cv2.GaussianBlur(film, (0, 0), 2))


def test_a_model_crops_by_the_network_in_its_own_folder(tmp_path):
    network = write_network(tmp_path / "network", SIZE_PX)
    card = replace(make_card(["A"], [1], [1]), lungs=describe_network(str(network)), settings={"lungs": str(network)})
    copy_network(card, tmp_path / "model" / "lungs")
    shutil.rmtree(network)
    how = {"crop": "lungs", "crop_margin": 0.0}
    registered = replace(PROPERTIES, lungs=card.lungs["sha256"], **how)
    with pytest.raises(AssertionError, match="not opened in its folder"):
        load_film(film_with_lungs(), registered)
    served = load_film(film_with_lungs(), registered.at(tmp_path / "model"))
    settings = Etl(sizes_px=[64], lungs=str(tmp_path / "model" / "lungs"), quality=Quality(0, clipped=False), **how)
    expected = load_squares(film_with_lungs, settings, 1)
    np.testing.assert_array_equal(served.pixels, expected.squares[0])
    assert served.crop == expected.crop and 130 < served.crop.width < 170


def test_a_model_without_its_network_is_refused(tmp_path):
    network = write_network(tmp_path / "model" / "lungs", SIZE_PX)
    about = describe_network(str(network))
    with pytest.raises(InputError, match="has the lung network .* the model was trained with 0123: register it again"):
        replace(PROPERTIES, crop="lungs", lungs="0123").at(tmp_path / "model")
    with pytest.raises(InputError, match="is no folder of a lung network"):
        replace(PROPERTIES, crop="lungs", lungs=about["sha256"]).at(tmp_path)
    assert PROPERTIES.at(tmp_path) is PROPERTIES
    card = replace(make_card(["A"], [1], [1]), lungs=about | {"sha256": "0"}, settings={"lungs": str(network)})
    with pytest.raises(InputError, match="has another lung network than the one that cropped"):
        copy_network(card, tmp_path / "other")
    moved = replace(card, settings={"lungs": str(tmp_path / "moved")})
    with pytest.raises(InputError, match="the network that cropped .* is needed, put it back: .*moved is no folder of"):
        copy_network(moved, tmp_path / "other")
