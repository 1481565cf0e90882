"""Finer maps, and the pooling that makes logits of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from conf.errors import InputError
from training.network.build import build_model
from training.network.map_grid import measure_map_grid
from training.network.models import pool
from training.network.weights import load_weights

PIXELS = torch.randint(0, 256, (2, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
MAPS = st_np.arrays("float32", (2, 3, 4, 4), elements=st.floats(-50, 50, width=16))


@given(MAPS, st.floats(0.1, 20))
def test_a_soft_maximum_lies_between_mean_and_maximum_and_moves_with_its_map(maps, sharpness):
    maps = torch.from_numpy(maps)
    mean, soft, largest = pool(maps, 0.0), pool(maps, sharpness), maps.amax(dim=(2, 3))
    assert (mean <= soft + 1e-3).all() and (soft <= largest + 1e-3).all()
    assert torch.allclose(pool(2 * maps + 5, sharpness / 2), 2 * soft + 5, atol=1e-3)
    assert torch.equal(pool(maps, torch.full((3,), sharpness)), soft)


def test_the_limits_of_the_sharpness_are_mean_and_maximum():
    maps = torch.randn(2, 3, 4, 4)
    assert torch.allclose(pool(maps, 1e-3), maps.mean(dim=(2, 3)), atol=1e-2)
    assert torch.allclose(pool(maps, 1e4), maps.amax(dim=(2, 3)), atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"tabular": True}, {"map_stride": 8}])
def test_the_logit_is_the_pooled_map(options):
    model = build_model("resnet10_half", 5, 120, 60, sharpness=2.0, **options).eval()
    inputs = (PIXELS, torch.rand(2, 9)) if options.get("tabular") else (PIXELS,)
    with torch.no_grad():
        logits, maps = model(*inputs, with_maps=True)
        assert torch.equal(maps, model.features_and_maps(*inputs)[1]) and torch.equal(logits, model(*inputs))
    assert torch.allclose(logits, pool(maps, 2.0)) and not torch.allclose(logits, maps.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("name", "map_stride", "side"),
    [
        ("resnet10_half", 16, 6),
        ("resnet10_half", 8, 12),
        ("simple_cnn", 8, 11),
        ("densenet121", 8, 10),
        ("convnext_tiny", 16, 5),
        ("mobilenet_v3_small", 8, 12),
    ],
)
def test_a_finer_map_has_cells_of_the_stride_and_the_same_weights(name, map_stride, side, monkeypatch):
    # Four are more exact than this needs.
    monkeypatch.setattr("training.network.map_grid.NUM_IMAGES", 1)
    own, finer = (build_model(name, 3, 120, 60, map_stride=stride).eval() for stride in (0, map_stride))
    assert {key: value.shape for key, value in own.state_dict().items()} == {
        key: value.shape for key, value in finer.state_dict().items()
    }
    finer.load_state_dict(own.state_dict())
    with torch.no_grad():
        maps = finer.features_and_maps(PIXELS[:1])[1]
    assert maps.shape == (1, 3, side, side)
    first, step = measure_map_grid(finer, 96)
    assert step * 96 == map_stride and -map_stride / 2 < first * 96 < map_stride * 1.5


def test_a_finer_map_repeats_the_coarse_one_at_its_places():
    # A dilated convolution sees what the convolution with a stride saw, at more places.
    own, finer = (build_model("resnet10_half", 3, 120, 60, map_stride=stride).eval() for stride in (0, 8))
    finer.load_state_dict(own.state_dict())
    with torch.no_grad():
        coarse, fine = (model.feature_map(PIXELS) for model in (own, finer))
    assert torch.allclose(fine[:, :, ::4, ::4], coarse, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "map_stride", "message"),
    [
        ("simple_cnn", 16, "its own map has 16 pixels per cell"),
        ("vit_b_16", 8, "patches or windows of one size"),
        ("swin_t", 8, "layers without windows, and reaches 32"),
        ("googlenet", 8, "no longer fit together"),
    ],
)
def test_a_map_that_a_network_cannot_have_is_refused(name, map_stride, message):
    with pytest.raises(InputError, match=f"training.map_stride is {map_stride}, but {name} cannot .*{message}.*leave"):
        build_model(name, 3, 120, 60, size_px=96, map_stride=map_stride)


def test_published_weights_fit_a_network_with_finer_maps(tmp_path):
    path = tmp_path / "weights.pt"
    own = build_model("resnet18", 3, 120, 60)
    torch.save({key.partition(".")[2]: value for key, value in own.state_dict().items() if "body." in key}, path)
    finer = build_model("resnet18", 3, 120, 60, map_stride=8)
    assert "layer4" in " ".join(load_weights(finer, str(path), "resnet18").loaded)
