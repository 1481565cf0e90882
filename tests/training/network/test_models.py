import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from conf.errors import InputError
from training.network.attributes import NUM_ATTRIBUTES, encode_attributes
from training.network.build import build_model, check_step

SIDE = 64
PIXELS = torch.randint(0, 256, (2, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ATTRIBUTES = torch.rand(2, NUM_ATTRIBUTES, generator=torch.Generator().manual_seed(1))


def make_lively(module):
    """Moves a fresh network's weights away from the ones and zeros that would hide a lost layer."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in module.parameters():
            if tensor.ndim == 1:
                tensor += torch.rand(tensor.shape, generator=generator) * 0.1
    return module.eval()


# The layer of torchvision's head that first gets the features, and the image size; at 224 vgg's map is 7 x 7, and its
# pooling does nothing.
PENULTIMATE = {
    "densenet121": ("classifier", SIDE),
    "resnet50": ("fc", SIDE),
    "vgg16": ("classifier.0", 224),
    "convnext_tiny": ("classifier.2", SIDE),
    "efficientnet_b0": ("classifier.1", SIDE),
    "vit_b_16": ("heads.head", 32),
    "swin_t": ("head", SIDE),
    "mobilenet_v3_small": ("classifier.0", SIDE),
    "shufflenet_v2_x0_5": ("fc", SIDE),
}


@pytest.mark.parametrize("name", PENULTIMATE)
def test_the_features_match_torchvision(name):
    layer, side = PENULTIMATE[name]
    model = build_model(name, 3, pixel_mean=100, pixel_std=50, size_px=side)
    options = {"image_size": side} if name == "vit_b_16" else {}
    network = make_lively(torchvision.models.get_model(name, weights=None, **options))
    theirs = network.state_dict()
    ours = {key: theirs[key.partition(".")[2]] for key in model.state_dict() if key.startswith(("body.", "neck."))}
    model.load_state_dict({**model.state_dict(), **ours})
    seen = {}
    network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.update(theirs=inputs[0]))
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.update(ours=inputs[0]))
    pixels = PIXELS.repeat(1, 4, 4)[:, :side, :side]
    images = ((pixels.float() - 100) / 50).unsqueeze(1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        network(images)
        model.eval()(pixels)
    expected = seen["theirs"]
    if name == "vgg16":
        expected = expected.view(2, 512, 49).mean(dim=2)
    assert expected.std() > 1e-4
    assert torch.allclose(seen["ours"], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("name", "tabular", "exact"),
    [
        ("simple_cnn", False, True),
        ("simple_cnn", True, True),
        ("convnext_tiny", True, True),
        ("swin_t", False, True),
        ("vit_b_32", True, False),
        ("timm:test_vit", False, False),
        ("timm:eva_x_tiny_patch16", True, True),
        ("timm:test_convnext", False, True),
    ],
)
def test_the_maps_mean_is_the_logit(name, tabular, exact):
    model = make_lively(build_model(name, 5, 120, 60, tabular=tabular, size_px=SIDE))
    inputs = (PIXELS, ATTRIBUTES) if tabular else (PIXELS,)
    with torch.no_grad():
        seen = []
        model.classifier.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
        features, maps = model.features_and_maps(*inputs)
        logits = model(*inputs)
    assert model.exact_maps == exact
    assert maps.std(dim=(2, 3)).min() > 0
    assert torch.allclose(maps.mean(dim=(2, 3)), logits, atol=1e-5 * float(maps.abs().max()) + 1e-6)
    assert torch.allclose(features, seen[0][:, : features.shape[1]], atol=1e-5 * float(features.abs().max()))


def test_a_class_tokens_maps_compare_the_patches():
    """The last layer on each patch token behind the last LayerNorm, as torchvision computes them."""
    model = make_lively(build_model("vit_b_32", 3, 120, 60, size_px=SIDE))
    with torch.no_grad():
        seen = []
        model.body.encoder.register_forward_hook(lambda *arguments: seen.append(arguments[-1]))
        _, maps = model.features_and_maps(PIXELS)
        patches = model.classifier(seen[0][:, 1:]).transpose(1, 2).unflatten(2, (2, 2))
    evidence, expected = (part - part.mean(dim=(2, 3), keepdim=True) for part in (maps, patches))
    assert expected.std() > 1e-3
    assert torch.allclose(evidence, expected, atol=1e-4 * float(expected.abs().max()))


def test_bytes_and_floats_give_the_same():
    model = build_model("simple_cnn", 2, 120, 60).eval()
    assert torch.equal(model(PIXELS), model(PIXELS.float()))


def test_three_equal_channels_are_grey():
    torch.manual_seed(0)
    grey = build_model("simple_cnn", 2, 120, 60).eval()
    colour = build_model("simple_cnn", 2, 120, 60, channels=3).eval()
    colour.load_state_dict(grey.state_dict())
    rgb = PIXELS[..., None].repeat(1, 1, 1, 3)
    assert torch.allclose(grey(PIXELS), colour(rgb), atol=1e-6)
    rgb[..., 2] = 0
    assert not torch.allclose(grey(PIXELS), colour(rgb), atol=1e-3)


def test_red_is_the_first_channel_of_the_body():
    seen = []
    model = build_model("simple_cnn", 1, 0, 1, channels=3)
    model.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    red = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)
    red[..., 0] = PIXELS
    model(red)
    assert torch.equal(seen[0][:, 0], PIXELS.float())
    assert not seen[0][:, 1:].any()


def test_normalisation_makes_the_training_pixels_standard():
    seen = []
    pixels = PIXELS.float()
    model = build_model("simple_cnn", 1, pixels.mean(), pixels.std())
    model.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(PIXELS)
    assert seen[0].mean().abs() < 1e-5
    assert (seen[0].std() - 1).abs() < 1e-3


def test_attributes_change_the_logits_and_all_places_alike():
    model = make_lively(build_model("simple_cnn", 2, 120, 60, tabular=True))
    with torch.no_grad():
        one, other = (model.features_and_maps(PIXELS, ATTRIBUTES * factor)[1] for factor in (1, 3))
    difference = other - one
    assert difference.abs().min() > 1e-4
    assert torch.allclose(difference, difference[:, :, :1, :1].expand_as(difference), atol=1e-5)
    for wrong in ((build_model("simple_cnn", 2, 0, 1), ATTRIBUTES), (model, None)):
        with pytest.raises(AssertionError, match="tabular"):
            wrong[0](PIXELS, wrong[1])


def test_attributes_are_encoded_by_column():
    encoded = encode_attributes([50, 75.0, None, float("nan")], ["F", "M", None, "F"], ["PA", "AP", "LATERAL", None])
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [
        [0, 0, 1, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 1, 0, 0],
        [0, 1, 0, 0, 1, 0, 0, 1, 0],
        [0, 1, 1, 0, 0, 0, 0, 0, 1],
    ]
    assert encode_attributes([], [], []).shape == (0, NUM_ATTRIBUTES)


def test_an_unknown_word_among_the_attributes_is_refused():
    with pytest.raises(InputError, match="view is 'LL', 'XX', expected PA, AP, LATERAL"):
        encode_attributes([1, 2, 3], ["F", "F", "M"], ["XX", "LL", "PA"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("densnet121", {}, r"training\.model is 'densnet121'"),
        ("fasterrcnn_resnet50_fpn", {}, r"training\.model"),
        ("vit_b_16", {}, "size_px"),
        ("vit_b_16", {"size_px": 100}, "100 x 100 .* a multiple of 16"),
        ("maxvit_t", {"size_px": 256}, "a multiple of 224"),
        ("simple_cnn", {"channels": 2}, "2 channels"),
    ],
)
def test_an_impossible_model_is_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        build_model(name, 3, 0, 1, **options)


@pytest.mark.parametrize(
    ("name", "size_px", "num_images"),
    [("alexnet", 32, 8), ("inception_v3", 64, 8), ("resnet18", 32, 1), ("vit_b_32", 96, 8)],
)
def test_a_step_that_would_fail_is_refused(name, size_px, num_images):
    model = build_model(name, 3, 0, 1, size_px=SIDE)
    with pytest.raises(InputError, match=rf"{name} .* {num_images} images of {size_px} x {size_px} pixels .*: choose"):
        check_step(model, name, size_px, num_images)


@pytest.mark.parametrize(
    ("name", "size_px", "num_images", "options"),
    [
        ("resnet18", 32, 2, {}),
        ("resnet18", 64, 1, {"channels": 3, "tabular": True}),
        ("vit_b_32", 32, 1, {"size_px": 32}),
    ],
)
def test_checking_a_step_leaves_the_model_as_it_was(name, size_px, num_images, options):
    model = build_model(name, 3, 0, 1, **options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_step(model, name, size_px, num_images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dropout_of_torchvisions_head_is_kept():
    model = build_model("efficientnet_b0", 3, 0, 1)
    assert [layer.p for layer in model.neck.modules() if isinstance(layer, nn.Dropout)] == [0.2]
