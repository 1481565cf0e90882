import pytest
import torch
import torchvision
from torch import nn

from conf.errors import InputError
from training.models import XrayClassifier, build_model, check_step

SIDE = 64
PIXELS = torch.randint(0, 256, (2, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", ["densenet121", "resnet18", "shufflenet_v2_x0_5", "regnet_y_400mf", "mobilenet_v3_small"]
)
def test_the_body_is_torchvisions_network_up_to_its_pooling(name):
    model = build_model(name, 3, pixel_mean=100, pixel_std=50).eval()
    network = torchvision.models.get_model(name, weights=None).eval()
    ours = model.body.state_dict()
    theirs = network.state_dict()
    shared = list(theirs)[: len(ours)]
    assert [value.shape for value in ours.values()] == [theirs[key].shape for key in shared]
    network.load_state_dict({**theirs, **dict(zip(shared, ours.values(), strict=True))})
    pooled = []
    first_linear = next(module for module in network.modules() if isinstance(module, nn.Linear))
    first_linear.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    images = ((PIXELS.float() - 100) / 50).unsqueeze(1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        network(images)
        features = model.feature_map(PIXELS).mean(dim=(2, 3))
    assert torch.allclose(features, pooled[0], atol=1e-4)


def test_the_maps_mean_is_the_logit():
    model = build_model("simple_cnn", 5, 120, 60).eval()
    with torch.no_grad():
        probabilities, maps = model.probabilities_and_maps(PIXELS)
        logits = model(PIXELS)
    assert torch.allclose(maps.mean(dim=(2, 3)), logits, atol=1e-5)
    assert torch.allclose(probabilities, logits.sigmoid(), atol=1e-6)


def test_bytes_and_floats_give_the_same():
    model = build_model("simple_cnn", 2, 120, 60).eval()
    assert torch.equal(model(PIXELS), model(PIXELS.float()))


def test_normalisation_makes_the_training_pixels_standard():
    seen = []
    body = nn.Conv2d(3, 4, 1)
    body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = PIXELS.float()
    XrayClassifier(body, 4, 1, pixels.mean(), pixels.std())(PIXELS)
    assert seen[0].mean().abs() < 1e-5
    assert (seen[0].std() - 1).abs() < 1e-3


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "densnet121", "fasterrcnn_resnet50_fpn"])
def test_a_name_without_a_convolutional_map_is_refused(name):
    with pytest.raises(InputError, match=r"training\.model"):
        build_model(name, 3, 0, 1)


@pytest.mark.parametrize(
    ("name", "size_px", "num_images"), [("alexnet", 32, 8), ("inception_v3", 64, 8), ("resnet18", 32, 1)]
)
def test_a_step_that_would_fail_is_refused(name, size_px, num_images):
    model = build_model(name, 3, 0, 1)
    with pytest.raises(InputError, match=rf"{name} .* {num_images} images of {size_px} x {size_px} pixels .*: choose"):
        check_step(model, name, size_px, num_images)


@pytest.mark.parametrize(("size_px", "num_images"), [(32, 2), (64, 1)])
def test_checking_a_step_leaves_the_model_as_it_was(size_px, num_images):
    model = build_model("resnet18", 3, 0, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_step(model, "resnet18", size_px, num_images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
