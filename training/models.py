"""Networks: a convolutional body, global average pooling and one linear layer, so that every model has activation maps.

The model takes the contract's pixels as they are stored. Normalisation is part of the network, and therefore of every
checkpoint and exported graph: training and serving cannot preprocess differently.
"""

import copy

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from conf.errors import InputError

# Large enough for every body; how many channels come out does not depend on it.
PROBE_PX = 96


class XrayClassifier(nn.Module):
    """Grey pixels to one logit per finding, and on request to class activation maps."""

    def __init__(self, body: nn.Module, num_channels: int, num_findings: int, pixel_mean: float, pixel_std: float):
        """body: (batch, 3, S, S) float32 to (batch, num_channels, s, s); pixel_mean, pixel_std: 0..255, of the training
        split."""
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(num_channels, num_findings)
        self.register_buffer("pixel_mean", torch.tensor(float(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(float(pixel_std)))

    def feature_map(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, S, S) uint8 or float32, 0..255. Returns (batch, channels, s, s) float32.

        A radiograph is grey: the three channels that published networks expect are made here, on the device.
        """
        normalised = (pixels.float() - self.pixel_mean) / self.pixel_std
        channels = normalised.unsqueeze(1).expand(-1, 3, -1, -1)
        return self.body(channels.contiguous(memory_format=torch.channels_last))

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (batch, S, S) uint8 or float32, 0..255. Returns logits (batch, findings) float32."""
        return self.classifier(self.feature_map(pixels).mean(dim=(2, 3)))

    def probabilities_and_maps(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (batch, findings), 0..1, and class activation maps (batch, findings, s, s) in logits.

        The map is the classifier applied to each place of the feature map (Zhou et al., "Learning deep features for
        discriminative localization", CVPR 2016); its mean over the places is the logit.
        """
        feature_map = self.feature_map(pixels)
        weight = self.classifier.weight[:, :, None, None]
        maps = nn.functional.conv2d(feature_map, weight, self.classifier.bias)
        return maps.mean(dim=(2, 3)).sigmoid(), maps


def build_model(name: str, num_findings: int, pixel_mean: float, pixel_std: float) -> XrayClassifier:
    """A freshly initialised model.

    name: `simple_cnn`, `resnet10_half`, or a torchvision classification model that ends in a convolutional feature map
    (densenet121, resnet50, vgg16, convnext_tiny, ...). Raises InputError for other names.
    """
    body = OWN_BODIES[name]() if name in OWN_BODIES else _torchvision_body(name)
    with torch.no_grad():
        probe = body.eval()(torch.zeros(1, 3, PROBE_PX, PROBE_PX))
    model = XrayClassifier(body, probe.shape[1], num_findings, pixel_mean, pixel_std)
    return model.train()


def check_step(model: XrayClassifier, name: str, size_px: int, num_images: int) -> None:
    """Raises InputError where a training step of `num_images` images with side `size_px` would fail.

    Small images shrink to nothing in some networks, and BatchNorm needs more than one value per channel: more than one
    image where the feature map has one place.
    """
    # The meta device computes shapes and nothing else; a copy, for no weights come back from there.
    shapes = copy.deepcopy(model).train().to("meta")
    try:
        shapes(torch.empty(num_images, size_px, size_px, device="meta"))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"training.model {name} fails in the smallest step of this training, {num_images} images of {size_px} x "
            f"{size_px} pixels ({error}): choose a larger training.size_px or training.batch_size, or another model"
        ) from error


def _simple_cnn() -> nn.Module:
    """The two-hidden-layer baseline: two blocks of convolution, BatchNorm, ReLU and pooling."""
    layers = []
    for inputs, outputs in ((3, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def _resnet10_half() -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016) with one block instead of two per stage and half its channels.

    An eighth of ResNet-18's work and a tenth of its weights: it learns in minutes on two cores, where sending 45 MB of
    gradients per step would cost as much as computing them.
    """
    stages = [nn.Conv2d(3, 32, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    stages += [nn.MaxPool2d(3, stride=2, padding=1), BasicBlock(32, 32)]
    for inputs, outputs in ((32, 64), (64, 128), (128, 256)):
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))
        stages.append(BasicBlock(inputs, outputs, stride=2, downsample=shortcut))
    return nn.Sequential(*stages)


OWN_BODIES = {"simple_cnn": _simple_cnn, "resnet10_half": _resnet10_half}


def _torchvision_body(name: str) -> nn.Module:
    """The layers of a torchvision classifier up to its last convolutional feature map, randomly initialised."""
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise InputError(
            f"training.model is {name!r}, expected one of {list(OWN_BODIES)} or of torchvision's {classifiers}"
        )
    # These end in tokens, not in a convolutional map.
    if name.startswith(("vit", "swin", "maxvit")):
        raise InputError(
            f"training.model {name} has no convolutional feature map: choose one such as densenet121 or resnet50"
        )
    # The Inception family would warn that it starts slowly, and add a second head.
    options = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **options)
    if name.startswith("densenet"):
        # torchvision applies this last ReLU outside `features`.
        return nn.Sequential(network.features, nn.ReLU(inplace=True))
    if hasattr(network, "features"):
        return network.features
    # The ResNet way: stages as direct children, then pooling and a head with a linear layer.
    return nn.Sequential(*(child for child in network.children() if not _is_head(child)))


def _is_head(layer: nn.Module) -> bool:
    pools = isinstance(layer, nn.AdaptiveAvgPool2d | nn.Dropout)
    return pools or any(isinstance(part, nn.Linear) for part in layer.modules())
