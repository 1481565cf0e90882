"""Networks of a body, pooling and one linear layer, so that every model has class activation maps.

The model takes the contract's pixels as they are stored. Normalisation is part of the network, and therefore of every
checkpoint and exported graph, so training and serving cannot preprocess differently.
"""

import torch
from torch import Tensor, nn

from training.network.attributes import NUM_ATTRIBUTES, TABULAR_FEATURES, tabular_branch
from training.network.bodies import Body


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
        self.tabular = tabular_branch() if tabular else None
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
