import pytest
import timm
import torch
from timm.layers import DropPath

from conf.errors import InputError
from tests.conftest import make_checkpoint
from tests.training.network.test_models import PIXELS, SIDE, make_lively
from training.network.build import build_model, check_step


@pytest.mark.parametrize(
    "name",
    [
        # Feature maps; with and without a LayerNorm behind the pooling.
        "test_resnet",
        "test_convnext",
        # The mean over tokens, and the class token.
        "test_vit2",
        "test_vit",
        "deit_tiny_patch16_224",
        "mixer_s32_224",
        # Channels last.
        "swin_tiny_patch4_window7_224",
    ],
)
def test_the_features_are_timms(name):
    model = build_model(f"timm:{name}", 3, pixel_mean=100, pixel_std=50, size_px=SIDE)
    make_lively(model)
    options = {"img_size": SIDE} if model.fixed_size else {}
    network = make_lively(timm.create_model(name, num_classes=0, **options))
    ours = {key.partition(".")[2].removeprefix("network."): tensor for key, tensor in model.state_dict().items()}
    network.load_state_dict({key: ours[key] for key in network.state_dict()})
    images = ((PIXELS.float() - 100) / 50).unsqueeze(1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        features, _ = model.features_and_maps(PIXELS)
        expected = network(images)
    assert expected.std() > 1e-4
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_every_parameter_learns():
    """A part that the head alone had used would make ranks wait for its gradient."""
    for name in ("timm:test_vit", "timm:test_convnext"):
        model = build_model(name, 3, 100, 50, size_px=SIDE)
        model(PIXELS).sum().backward()
        assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("name", "size_px", "message"),
    [
        ("vit_base_patch16_242", SIDE, r"timm .* does not have: did you mean timm:vit_base_patch16_224"),
        ("mobilenetv3_small_050", SIDE, "one linear layer .* choose another model, such as timm:resnet50"),
        ("test_vit3", SIDE, "its pooling is 'map'"),
        ("crossvit_tiny_240", 240, "neither a feature map nor tokens"),
        ("test_vit", 50, "50 x 50 pixels: choose a training.size_px that is a multiple of 16"),
    ],
)
def test_an_unfit_network_is_refused(name, size_px, message):
    with pytest.raises(InputError, match=message):
        build_model(f"timm:{name}", 3, 100, 50, size_px=size_px)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("training.network.bodies.find_spec", lambda name: None)
    with pytest.raises(InputError, match="timm is not installed: run `make setup`"):
        build_model("timm:test_vit", 3, 100, 50, size_px=SIDE)


@pytest.mark.parametrize("name", ["timm:test_vit", "convnext_tiny"])
def test_drop_path_leaves_blocks_out(name):
    model = build_model(name, 3, 100, 50, size_px=SIDE, drop_path=0.5)
    if name == "timm:test_vit":
        assert max(part.drop_prob for part in model.modules() if isinstance(part, DropPath)) == 0.5
    torch.manual_seed(0)
    assert not torch.equal(model.train()(PIXELS), model(PIXELS))
    assert torch.equal(model.eval()(PIXELS), model(PIXELS))


@pytest.mark.parametrize("name", ["resnet18", "simple_cnn", "vit_b_32", "timm:vgg11"])
def test_drop_path_is_refused_without_stochastic_depth(name):
    with pytest.raises(InputError, match=rf"drop_path is 0\.1, but {name} has no stochastic depth"):
        build_model(name, 3, 100, 50, size_px=SIDE, drop_path=0.1)


def test_a_checkpoint_is_built_again_and_takes_its_size_alone():
    name = "timm:test_vit"
    model = build_model(name, 3, 127, 70, size_px=32, drop_path=0.3)
    rebuilt = make_checkpoint(model=name, weights=model.state_dict()).build()
    pixels = PIXELS[:, :32, :32]
    assert torch.equal(rebuilt(pixels), model.eval()(pixels))
    check_step(model, name, 32, 1)
    with pytest.raises(InputError, match="fails in the smallest step"):
        check_step(model, name, 48, 1)
