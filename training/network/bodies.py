"""Bodies of the networks: two small ones of our own, and every torchvision classifier without the end of its head.

The layers of a torchvision network keep their names, so that its published weights fit without a table of names.
"""

from collections import OrderedDict

import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from conf.errors import InputError

HEADS = ("avgpool", "flatten", "dropout", "fc", "classifier", "head", "heads")
"""torchvision's names for the children of a network that come after its last feature map or class token"""
FIXED_SIZE = ("vit", "maxvit")
"""families that are built for one size of the input"""


def build_body(name: str, size_px: int | None) -> tuple[nn.Module, nn.Module]:
    """Builds a freshly initialised body and neck.

    name: `simple_cnn`, `resnet10_half` or a torchvision classifier. size_px: side of the input, which only the
    FIXED_SIZE families need. The body takes (batch, 3, S, S) float32 and returns a feature map (batch, channels, s, s);
    vit_* return the class token (batch, channels) instead. The neck has the layers that torchvision puts between the
    pooling and the first linear layer of the head: the LayerNorm of convnext_* and maxvit_t, dropout, usually nothing.
    It takes (batch, channels, 1, 1) or (batch, channels) and keeps the number of channels.

    The head's linear layers are left out, including hidden ones (two in vgg* and alexnet, one in mobilenet_v3_* and
    maxvit_t). A single linear layer follows instead, as in the VGGnet-GAP of Zhou et al., CVPR 2016. Raises InputError
    for an unknown name and for an input size that the network does not take.
    """
    if name in OWN_BODIES:
        return OWN_BODIES[name](), nn.Sequential()
    network = _torchvision_network(name, size_px)
    neck = _neck(network)
    if name.startswith("vit"):
        # Its class token and its patches are not child modules, so the network stays whole.
        network.heads = nn.Identity()
        return network, neck
    stages = OrderedDict((part, child) for part, child in network.named_children() if part not in HEADS)
    if name.startswith("densenet"):
        # torchvision applies this last ReLU outside `features`.
        stages["relu"] = nn.ReLU(inplace=True)
    if name.startswith("maxvit"):
        stages["blocks"] = nn.Sequential(*stages["blocks"])
    return nn.Sequential(stages), neck


def _torchvision_network(name: str, size_px: int | None) -> nn.Module:
    """The whole network, randomly initialised."""
    classifiers = torchvision.models.list_models(module=torchvision.models)
    if name not in classifiers:
        raise InputError(
            f"training.model is {name!r}, expected one of {list(OWN_BODIES)} or of torchvision's {classifiers}"
        )
    options = {}
    if name in ("googlenet", "inception_v3"):
        # Without these they would warn of a slow initialisation and add a second head.
        options = {"init_weights": True, "aux_logits": False}
    elif name.startswith(FIXED_SIZE):
        if size_px is None:
            raise InputError(f"training.model {name} is built for one input size: pass size_px to build_model")
        options = {"image_size": size_px} if name.startswith("vit") else {"input_size": (size_px, size_px)}
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
