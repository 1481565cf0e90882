"""Networks of a body, pooling and one linear layer, so that every model has class activation maps.

The model takes the contract's pixels as they are stored. Normalisation is part of the network, and therefore of every
checkpoint and exported graph, so training and serving cannot preprocess differently.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from conf.errors import InputError
from conf.settings import Training
from conf.words import SEXES, VIEWS
from training.network.bodies import Body, build_body
from training.network.strides import refine_map

# Large enough for every body; the number of its output channels does not depend on it.
PROBE_PX = 96
# They scale the ages of a hospital's patients to between -2 and 2.
AGE_CENTRE_YEARS, AGE_SCALE_YEARS = 50.0, 25.0
# Age and its indicator of "unknown"; a column per sex and one for "unknown"; the same for view.
NUM_ATTRIBUTES = 2 + len(SEXES) + 1 + len(VIEWS) + 1
TABULAR_FEATURES = 16


class XrayClassifier(nn.Module):
    """Turns pixels into one logit per finding, and on request into class activation maps.

    With a tabular branch it takes attributes too.
    """

    def __init__(
        self,
        body: Body,
        num_features: int,
        num_findings: int,
        pixel_mean: float,
        pixel_std: float,
        *,
        channels: int = 1,
        tabular: bool = False,
        exclusive: bool = False,
        exact_maps: bool = True,
        map_stride: int = 0,
        sharpness: float = 0.0,
    ):
        """body: from bodies.build_body, with `num_features` channels. pixel_mean, pixel_std: 0..255, those of the
        training split over all channels. channels: 1 grey, 3 RGB. exclusive: whether each image has exactly one class.
        exact_maps: whether the logits are made of the maps, by `pool` with this sharpness, and not of a class token.
        map_stride: with which refine_map changed the body; 0 if it did not."""
        super().__init__()
        self.body, self.neck = body.layers, body.neck
        self.fixed_size, self.even_cells = body.fixed_size, body.even_cells
        # Age, sex and view join the pooled features before the last layer, as in Godonou et al.
        self.tabular = _tabular_branch() if tabular else None
        self.classifier = nn.Linear(num_features + TABULAR_FEATURES * tabular, num_findings)
        self.channels = channels
        self.exclusive = exclusive
        self.exact_maps = exact_maps
        self.map_stride = map_stride
        self.sharpness = sharpness
        self.register_buffer("pixel_mean", torch.tensor(float(pixel_mean)))
        self.register_buffer("pixel_std", torch.tensor(float(pixel_std)))

    def feature_map(self, pixels: Tensor) -> Tensor:
        """The body's feature map, (batch, channels, s, s) float32.

        pixels: (batch, S, S) grey or (batch, S, S, 3) RGB, uint8 or float32, 0..255. A radiograph is grey; the three
        channels that published networks expect are made here, on the device.
        """
        return self._places_and_token(pixels)[0]

    def _places_and_token(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The feature map, and the class token (batch, channels, 1, 1) of a network that has its logits from one."""
        normalised = (pixels.float() - self.pixel_mean) / self.pixel_std
        images = normalised.permute(0, 3, 1, 2) if self.channels == 3 else normalised.unsqueeze(1).expand(-1, 3, -1, -1)
        features = self.body(images.contiguous(memory_format=torch.channels_last))
        return (features, None) if self.exact_maps else (features[0], features[1][:, :, None, None])

    def forward(
        self, pixels: Tensor, attributes: Tensor | None = None, with_maps: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The logits, (batch, findings) float32; with_maps: and the maps, as in features_and_maps.

        pixels: as in feature_map. attributes: (batch, NUM_ATTRIBUTES) float32 from encode_attributes, if and only if
        the model has a tabular branch.
        """
        assert (attributes is None) == (self.tabular is None), "attributes and a tabular branch go together"
        places, token = self._places_and_token(pixels)
        if with_maps or self.sharpness:
            _, maps = self._maps(places, token, attributes)
        if self.sharpness:
            logits = pool(maps, self.sharpness)
            return (logits, maps) if with_maps else logits
        pooled = places.mean(dim=(2, 3), keepdim=True) if token is None else token
        features = self.neck(pooled).flatten(1)
        if self.tabular is not None:
            features = torch.cat([features, self.tabular(attributes)], dim=1)
        logits = self.classifier(features)
        return (logits, maps) if with_maps else logits

    def features_and_maps(self, pixels: Tensor, attributes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pooled features (batch, num_features), and class activation maps (batch, findings, s, s) in logits.

        pixels, attributes: as in forward. The model must be in evaluation mode. A map is the classifier applied to each
        place of the feature map (Zhou et al., "Learning deep features for discriminative localization", CVPR 2016), and
        `pool` makes the logit of it: without sharpness, its mean. The attributes add the same at all places; the
        features are those of the image alone.

        If the logit comes from a class token, this is the feature, and the classifier was never trained on the patches:
        their map is shifted by one constant per image, so that its mean is the logit. It tells which places speak more
        for a finding than others, but the logit is not composed of them.
        """
        assert (attributes is None) == (self.tabular is None), "attributes and a tabular branch go together"
        return self._maps(*self._places_and_token(pixels), attributes)

    def _maps(self, places: Tensor, token: Tensor | None, attributes: Tensor | None) -> tuple[Tensor, Tensor]:
        """What features_and_maps returns. places, token: before the neck, see _places_and_token."""
        places = self._through_neck(places) if token is None else self.neck(places)
        num_features = places.shape[1]
        weight = self.classifier.weight[:, :num_features, None, None]
        maps = nn.functional.conv2d(places, weight, self.classifier.bias)
        if token is None:
            features = places.mean(dim=(2, 3))
        else:
            token = self.neck(token)
            logits = nn.functional.conv2d(token, weight, self.classifier.bias)
            maps, features = maps - maps.mean(dim=(2, 3), keepdim=True) + logits, token.flatten(1)
        if self.tabular is not None:
            added = nn.functional.linear(self.tabular(attributes), self.classifier.weight[:, num_features:])
            maps = maps + added[:, :, None, None]
        return features, maps

    def _through_neck(self, feature_map: Tensor) -> Tensor:
        """Applies the neck at each place, so that the mean over the places is the neck of the pooled features.

        A LayerNorm therefore uses the deviation of the pooled features, which is its only part that is not linear.
        In training mode, dropout leaves out whole channels, as after the pooling.
        """
        for layer in self.neck.modules():
            if isinstance(layer, nn.Dropout):
                feature_map = nn.functional.dropout2d(feature_map, layer.p, self.training)
        norm = next((layer for layer in self.neck.modules() if isinstance(layer, nn.LayerNorm)), None)
        if norm is None:
            return feature_map
        pooled = feature_map.mean(dim=(2, 3), keepdim=True)
        deviation = (pooled.var(dim=1, keepdim=True, correction=0) + norm.eps).sqrt()
        centred = feature_map - feature_map.mean(dim=1, keepdim=True)
        return centred / deviation * norm.weight[:, None, None] + norm.bias[:, None, None]

    def example_batch(self, num_images: int, size_px: int, device: str = "cpu") -> tuple[Tensor, ...]:
        """Zeros that `forward` takes: uint8 pixels and, with a tabular branch, float32 attributes."""
        side = (size_px, size_px)
        shape = (num_images, *side, 3) if self.channels == 3 else (num_images, *side)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=device)
        return (pixels,) if self.tabular is None else (pixels, torch.zeros(num_images, NUM_ATTRIBUTES, device=device))


def pool(maps: Tensor, sharpness: float | Tensor) -> Tensor:
    """The logits of maps, (batch, findings) float32: a mean over the places, or a soft maximum.

    maps: (batch, findings, s, s). sharpness: one number, or (findings,); 0: the mean; the larger, the nearer to the
    largest place: log(mean(exp(sharpness * map))) / sharpness, the log-sum-exp pooling of Pinheiro and Collobert, "From
    image-level to pixel-level labeling with convolutional networks", CVPR 2015, which Wang et al., "ChestX-ray8", CVPR
    2017, took for radiographs.
    """
    maps = maps.float()
    if isinstance(sharpness, float) and not sharpness:
        return maps.mean(dim=(2, 3))
    # In four dimensions: OpenVINO 2026.4's CPU plugin keeps the first batch's size in a product after a flattening.
    sharpness = torch.as_tensor(sharpness, device=maps.device).reshape(-1, 1, 1)
    scaled = maps * sharpness
    largest = scaled.amax(dim=(2, 3), keepdim=True)
    logits = ((scaled - largest).exp().mean(dim=(2, 3), keepdim=True).log() + largest) / sharpness
    return logits.flatten(1)


def build_model(
    name: str,
    num_findings: int,
    pixel_mean: float,
    pixel_std: float,
    *,
    size_px: int | None = None,
    channels: int = 1,
    tabular: bool = False,
    exclusive: bool = False,
    map_stride: int = 0,
    sharpness: float = 0.0,
    drop_path: float | None = None,
) -> XrayClassifier:
    """Builds a freshly initialised model, in training mode.

    name, size_px, drop_path: as for build_body. pixel_mean, pixel_std: those of the training split, 0..255. channels: 1
    grey, 3 RGB. tabular: whether there is a branch for age, sex and view. exclusive: whether probabilities are a
    softmax over classes. map_stride: pixels of the image per cell of the maps, see refine_map; 0: the network's own.
    sharpness: how much the strongest place counts, see pool. Raises InputError for another number of channels, for
    sharpness in a network whose class token makes the logits, and for what build_body and refine_map refuse.
    """
    if channels not in (1, 3):
        raise InputError(f"images have {channels} channels, expected 1 (grey) or 3 (RGB)")
    body = build_body(name, size_px, drop_path)
    if map_stride:
        refine_map(body, name, map_stride)
    probe_px = size_px if body.fixed_size else PROBE_PX
    with torch.no_grad():
        probe = body.layers.eval()(torch.zeros(1, 3, probe_px, probe_px))
    places = probe if isinstance(probe, Tensor) else probe[0]
    model = XrayClassifier(
        body,
        places.shape[1],
        num_findings,
        pixel_mean,
        pixel_std,
        channels=channels,
        tabular=tabular,
        exclusive=exclusive,
        exact_maps=places is probe,
        map_stride=map_stride,
        sharpness=sharpness,
    )
    if sharpness and not model.exact_maps:
        raise InputError(
            f"training.sharpness is {sharpness}, but {name} has its logits from a class token, not from its map: leave "
            "training.sharpness out, or choose another training.model"
        )
    return model.train()


def build_for(
    training: Training, num_findings: int, pixel_mean: float, pixel_std: float, channels: int = 1
) -> XrayClassifier:
    """The freshly initialised model of these settings; the other arguments and the errors are those of build_model."""
    return build_model(
        training.model,
        num_findings,
        pixel_mean,
        pixel_std,
        size_px=training.size_px,
        channels=channels,
        tabular=training.tabular,
        exclusive=training.exclusive,
        map_stride=training.map_stride,
        sharpness=training.sharpness,
        drop_path=None if training.drop_path < 0 else training.drop_path,
    )


def check_step(model: XrayClassifier, name: str, size_px: int, num_images: int) -> None:
    """Raises InputError if a training step of `num_images` images with side `size_px` would fail.

    Some networks shrink small images to nothing, and others take only one size. BatchNorm needs more than one value per
    channel, so it needs more than one image if the feature map has a single place.
    """
    # The meta device computes nothing but shapes. It gets a copy, because no weights come back from there.
    shapes = copy.deepcopy(model).train().to("meta")
    try:
        shapes(*model.example_batch(num_images, size_px, "meta"))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(
            f"training.model {name} fails in the smallest step of this training, {num_images} images of {size_px} x "
            f"{size_px} pixels ({error}): choose a larger training.size_px or training.batch_size, or another model"
        ) from error


def encode_attributes(
    age_years: Sequence[float | None], sex: Sequence[str | None], view: Sequence[str | None]
) -> np.ndarray:
    """Age, sex and view as numbers, (batch, NUM_ATTRIBUTES) float32.

    age_years: years, None or NaN unknown; sex: F, M or None; view: PA, AP, LATERAL or None, each (batch,). Columns: age
    as (years - 50) / 25, 0 if unknown; 1 if age is unknown, else 0; one-hot F, M, unknown; one-hot PA, AP, LATERAL,
    unknown. Raises InputError for any other sex or view.
    """
    years = np.array(age_years, dtype=np.float32)
    unknown = np.isnan(years)
    scaled = np.where(unknown, 0, (years - AGE_CENTRE_YEARS) / AGE_SCALE_YEARS)
    columns = [scaled[:, None], unknown[:, None], _one_hot("sex", sex, SEXES), _one_hot("view", view, VIEWS)]
    return np.concatenate(columns, axis=1, dtype=np.float32)


def _one_hot(name: str, words: Sequence[str | None], vocabulary: tuple[str, ...]) -> np.ndarray:
    known = (*vocabulary, None)
    strange = sorted({repr(word) for word in words if word not in known})
    if strange:
        raise InputError(f"{name} is {', '.join(strange)}, expected {', '.join(vocabulary)} or None for unknown")
    return np.array([[word == column for column in known] for word in words], dtype=np.float32).reshape(-1, len(known))


def _tabular_branch() -> nn.Module:
    """Two small layers: (batch, NUM_ATTRIBUTES) to (batch, TABULAR_FEATURES), both float32."""
    hidden = nn.Linear(NUM_ATTRIBUTES, TABULAR_FEATURES), nn.ReLU()
    return nn.Sequential(*hidden, nn.Linear(TABULAR_FEATURES, TABULAR_FEATURES), nn.ReLU())
