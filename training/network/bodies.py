"""Bodies of the networks: two small ones of our own, and every torchvision classifier without the end of its head.

The layers of a torchvision network keep their names, so that its published weights fit without a table of names.
"""

from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from conf.errors import InputError

HEADS = ("avgpool", "flatten", "dropout", "fc", "classifier", "head", "heads")
"""torchvision's names for the children of a network that come after its last feature map or class token"""
FIXED_SIZE = ("vit", "maxvit")
"""families that are built for one size of the input"""
STOCHASTIC_DEPTH = ("convnext", "efficientnet", "maxvit", "swin")
"""families that leave out residual blocks at random in training"""


@dataclass(frozen=True)
class Body:
    """A network without the end of its head, freshly initialised."""

    layers: nn.Module
    """takes (batch, 3, S, S) float32; returns a feature map (batch, channels, s, s), or a pair of it and the class
    token (batch, channels) if the network has its logits from one"""
    neck: nn.Module
    """the layers between the pooling and the first linear layer of the head: a LayerNorm, dropout, usually nothing; it
    takes (batch, channels, s, s) and keeps the shape"""
    fixed_size: bool = False
    """whether the network is built for one size of the input"""
    even_cells: bool = False
    """whether the cells of the feature map divide the image evenly, because each is a patch of it or sees all of it"""


def build_body(name: str, size_px: int | None, drop_path: float | None = None) -> Body:
    """Builds a body and its neck.

    name: `simple_cnn`, `resnet10_half`, a torchvision classifier, or `timm:` and the name of one of timm's. size_px:
    side of the input, which only the FIXED_SIZE families and timm's networks need. drop_path: largest probability with
    which a residual block is left out in training, 0..1 (stochastic depth, Huang et al., ECCV 2016); None: the
    network's own.

    The head's linear layers are left out, including hidden ones (two in vgg* and alexnet, one in mobilenet_v3_* and
    maxvit_t). A single linear layer follows instead, as in the VGGnet-GAP of Zhou et al., CVPR 2016. Raises InputError
    for an unknown name, for an input size that the network does not take, and for a drop_path if it has none.
    """
    if name.startswith("timm:"):
        # Imported here, because only these networks need the package.
        if find_spec("timm") is None:
            raise InputError(
                f"training.model is {name}, but the Python module timm is not installed: run `make setup`, or "
                "`pip install timm` where pip installed CheXScale; or choose one of torchvision's classifiers"
            )
        from training.network.timm_bodies import build_timm_body

        return build_timm_body(name, size_px, drop_path)
    if name in OWN_BODIES:
        if drop_path is not None:
            raise InputError(no_drop_path(name, drop_path))
        return Body(OWN_BODIES[name](), nn.Sequential())
    network = _torchvision_network(name, size_px, drop_path)
    neck = _neck(network)
    if name.startswith("vit"):
        return Body(ClassTokenBody(network), neck, fixed_size=True, even_cells=True)
    stages = OrderedDict((part, child) for part, child in network.named_children() if part not in HEADS)
    if name.startswith("densenet"):
        # torchvision applies this last ReLU outside `features`.
        stages["relu"] = nn.ReLU(inplace=True)
    if name.startswith("maxvit"):
        stages["blocks"] = nn.Sequential(*stages["blocks"])
    fixed_size = name.startswith(FIXED_SIZE)
    return Body(nn.Sequential(stages), neck, fixed_size, even_cells=fixed_size)


class ClassTokenBody(nn.Module):
    """torchvision's vision transformer without its head: the layers keep their names, and no token is lost."""

    def __init__(self, network: torchvision.models.VisionTransformer):
        super().__init__()
        self.conv_proj, self.class_token, self.encoder = network.conv_proj, network.class_token, network.encoder
        self.image_size, self.patch_size = network.image_size, network.patch_size

    def layer_groups(self) -> list[list[str]]:
        """Names of the parameters, layer by layer from the input on."""
        blocks = [f"encoder.layers.{name}." for name, _ in self.encoder.layers.named_children()]
        names = [name for name, _ in self.named_parameters()]
        inside = [[name for name in names if name.startswith(block)] for block in blocks]
        last = [name for name in names if name.startswith("encoder.ln.")]
        first = [name for name in names if name not in last and not name.startswith("encoder.layers.")]
        inside[-1] += last
        return [first, *inside]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The patches' tokens as a feature map, (batch, channels, s, s), and the class token, (batch, channels).

        images: (batch, 3, S, S) float32, S as the network was built for. All tokens are behind the last LayerNorm.
        """
        patches = self.conv_proj(images)
        # Not len(images), which torch.export takes for a constant.
        class_tokens = self.class_token.expand(images.shape[0], -1, -1)
        tokens = torch.cat([class_tokens, patches.flatten(2).transpose(1, 2)], dim=1)
        tokens = self.encoder(tokens)
        return tokens[:, 1:].transpose(1, 2).unflatten(2, patches.shape[2:]), tokens[:, 0]


def no_drop_path(name: str, drop_path: float) -> str:
    """The message for a network without stochastic depth."""
    return (
        f"training.drop_path is {drop_path}, but {name} has no stochastic depth: leave training.drop_path out, or "
        "choose another model, such as convnext_tiny or swin_t"
    )


def _torchvision_network(name: str, size_px: int | None, drop_path: float | None) -> nn.Module:
    """The whole network, randomly initialised."""
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise InputError(
            f"training.model is {name!r}, expected timm:NAME, or one of {list(OWN_BODIES)} or of torchvision's "
            f"{classifiers}"
        )
    options = {}
    if name in ("googlenet", "inception_v3"):
        # Without these they would warn of a slow initialisation and add a second head.
        options = {"init_weights": True, "aux_logits": False}
    elif name.startswith(FIXED_SIZE):
        if size_px is None:
            raise InputError(f"training.model {name} is built for one input size: pass size_px to build_model")
        options = {"image_size": size_px} if name.startswith("vit") else {"input_size": (size_px, size_px)}
    if drop_path is not None:
        if not name.startswith(STOCHASTIC_DEPTH):
            raise InputError(no_drop_path(name, drop_path))
        options["stochastic_depth_prob"] = drop_path
    try:
        return torchvision.models.get_model(name, weights=None, **options)
    except (AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"training.model {name} does not take images of {size_px} x {size_px} pixels ({reason}): choose a "
            f"training.size_px that is {_sides(name)}, or another model"
        ) from error


def _sides(name: str) -> str:
    # MaxViT halves the side five times and cuts each map into windows of 7; vit_b_16 cuts the image into patches of 16.
    return f"a multiple of {32 * 7 if name.startswith('maxvit') else name.rpartition('_')[2]}"


def _neck(network: nn.Module) -> nn.Module:
    """The layers between pooling and the first linear layer of the head, under torchvision's names."""
    children = dict(network.named_children())
    if "dropout" in children:
        return nn.Sequential(OrderedDict(dropout=children["dropout"]))
    head = children.get("classifier")
    if not isinstance(head, nn.Sequential):
        return nn.Sequential()
    num_kept = next(index for index, layer in enumerate(head) if isinstance(layer, nn.Linear | nn.Conv2d))
    return nn.Sequential(OrderedDict(classifier=head[:num_kept]))


def _simple_cnn() -> nn.Module:
    """The two-hidden-layer baseline: two blocks of convolution, BatchNorm, ReLU and pooling."""
    layers = []
    for inputs, outputs in ((3, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers)


def _resnet10_half() -> nn.Module:
    """ResNet-18 (He et al., CVPR 2016) with one block instead of two per stage and half its channels.

    It has an eighth of ResNet-18's work and a tenth of its weights, so it learns in minutes on two cores, where sending
    ResNet-18's 45 MB of gradients per step would cost as much as computing them.
    """
    stages = [nn.Conv2d(3, 32, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)]
    stages += [nn.MaxPool2d(3, stride=2, padding=1), BasicBlock(32, 32)]
    for inputs, outputs in ((32, 64), (64, 128), (128, 256)):
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))
        stages.append(BasicBlock(inputs, outputs, stride=2, downsample=shortcut))
    return nn.Sequential(*stages)


OWN_BODIES = {"simple_cnn": _simple_cnn, "resnet10_half": _resnet10_half}
