"""Weight files under the names and shapes that their authors publish, with random numbers; no such file is here."""

import argparse
import re

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from conf.errors import InputError
from tests.training.network.test_models import PIXELS, SIDE, make_lively
from tests.training.network.test_weights import copy_of, fresh, published, save
from training.network.build import build_model
from training.network.weights import load_weights


def random_state(name, **options):
    """timm's network, and its tensors with random numbers."""
    torch.manual_seed(3)
    network = make_lively(timm.create_model(name, num_classes=0, **options))
    return network, dict(network.state_dict())


def assert_loaded(model, network):
    """The model's features are the network's."""
    images = ((PIXELS.float() - 100) / 50).unsqueeze(1).expand(-1, 3, -1, -1)
    with torch.no_grad():
        features, _ = model.eval().features_and_maps(PIXELS)
        expected = network(images)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def old_densenet_names(state):
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): tensor for key, tensor in state.items()}


def test_torchxrayvisions_densenet_sees_the_greys_that_it_was_trained_on(tmp_path):
    state = published("densenet121", num_classes=18)
    grey = torch.randn(64, 1, 7, 7) * 1e-3
    state |= {"features.conv0.weight": grey, "op_threshs": torch.rand(18)}
    state |= {"features.norm0.running_mean": torch.rand(64), "features.norm0.running_var": torch.rand(64) + 0.5}
    model = fresh("densenet121")
    done = load_weights(model, save(tmp_path, state), "densenet121")
    assert done.left_out == ["op_threshs", "classifier.weight", "classifier.bias"]
    assert "torchxrayvision's" in done.adapted["body.features.norm0.running_mean"]
    assert "grey channel" in done.adapted["body.features.conv0.weight"]
    xrv = nn.Sequential(nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64)).eval()
    xrv.load_state_dict(
        {"0.weight": grey} | {f"1.{key}": state[f"features.norm0.{key}"] for key in xrv[1].state_dict()}
    )
    with torch.no_grad():
        theirs = xrv((PIXELS[:, None].float() / 127.5 - 1) * 1024)
        normalised = ((PIXELS.float() - model.pixel_mean) / model.pixel_std)[:, None].expand(-1, 3, -1, -1)
        ours = model.eval().body.features.norm0(model.body.features.conv0(normalised))
    # The border sees the convolution's zeros, which are other greys.
    inside = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_chexnets_file_has_old_names_behind_two_prefixes(tmp_path):
    state = published("densenet121", num_classes=14)
    body = {key: tensor for key, tensor in state.items() if not key.startswith("classifier")}
    named = {f"module.densenet121.{key}": tensor for key, tensor in old_densenet_names(body).items()}
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in named
    named |= {f"module.densenet121.classifier.0.{key}": state[f"classifier.{key}"] for key in ("weight", "bias")}
    model = fresh("densenet121")
    done = load_weights(model, save(tmp_path, {"epoch": 5, "state_dict": named, "optimizer": {}}), "densenet121")
    for key, tensor in body.items():
        assert torch.equal(model.state_dict()[f"body.{key}"], tensor), key
    assert done.left_out == ["classifier.0.weight", "classifier.0.bias"]


def as_rad_dino(state):
    """timm's tensors under the names of Hugging Face's Dinov2Model."""
    names = [
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("pos_embed", "embeddings.position_embeddings"),
    ]
    names += [("cls_token", "embeddings.cls_token"), (r"blocks\.", "encoder.layer."), (r"^norm\.", "layernorm.")]
    names += [(r"attn\.proj", "attention.output.dense"), (r"ls(\d)\.gamma", r"layer_scale\1.lambda1")]
    renamed = {}
    for key, tensor in state.items():
        for ours, theirs in names:
            key = re.sub(ours, theirs, key)
        if ".attn.qkv." in key:
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[key.replace(".attn.qkv.", f".attention.attention.{part}.")] = piece.contiguous()
        else:
            renamed[key] = tensor
    return renamed | {"embeddings.mask_token": torch.zeros(1, state["cls_token"].shape[2])}


def test_rad_dinos_names_become_timms_and_safetensors_are_read(tmp_path):
    name, options = "vit_small_patch14_dinov2", {"img_size": 56}
    _, state = random_state(name, **options)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(as_rad_dino(state), path)
    model = build_model(f"timm:{name}", 2, 100, 50, size_px=56)
    done = load_weights(model, str(path), f"timm:{name}")
    assert done.fresh == ["classifier.weight", "classifier.bias"]
    for key, tensor in state.items():
        assert torch.equal(model.state_dict()[f"body.network.{key}"], tensor), key
    # At another size, as the published 518 pixels are.
    larger = build_model(f"timm:{name}", 2, 100, 50, size_px=84)
    done = load_weights(larger, str(path), f"timm:{name}")
    assert done.adapted == {"body.network.pos_embed": "resized from (1, 17, 384) to (1, 37, 384)"}
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable weight file"):
        load_weights(model, str(path), f"timm:{name}")


def test_a_masked_autoencoder_leaves_its_decoder_in_the_file(tmp_path):
    network, state = random_state("test_vit", img_size=SIDE, dynamic_img_size=False)
    decoder = {"mask_token": torch.zeros(1, 1, 32), "decoder_pos_embed": torch.zeros(1, 17, 32)}
    decoder |= {"decoder_embed.weight": torch.zeros(32, 64), "decoder_blocks.0.norm1.weight": torch.zeros(32)}
    content = {"model": state | decoder, "epoch": np.float64(3), "args": argparse.Namespace(lr=1e-3), "optimizer": {}}
    model = build_model("timm:test_vit", 2, 100, 50, size_px=SIDE)
    done = load_weights(model, save(tmp_path, content), "timm:test_vit")
    assert set(done.left_out) == set(decoder)
    assert_loaded(model, network)


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_eva_x_has_the_last_norm_behind_the_pooling(tmp_path, size):
    options = {"patch_size": 16, "ref_feat_shape": (14, 14), "img_size": SIDE, "depth": 2}
    network, state = random_state(f"eva02_{size}_patch14_224", **options)
    name = f"timm:eva_x_{size}_patch16"
    mim = {"mask_token": torch.zeros(1, 1, 8), "lm_head.weight": torch.zeros(4, 8), "rope.freqs_cos": torch.zeros(1)}
    for key, tensor in state.items():
        key = key.replace("fc_norm", "norm").replace("mlp.fc1_g", "mlp.w1").replace("mlp.fc1_x", "mlp.w2")
        mim[key.replace("mlp.norm", "mlp.ffn_ln").replace("mlp.fc2", "mlp.w3")] = tensor
    if size == "base":
        mim = {key.replace("q_proj.bias", "q_bias").replace("v_proj.bias", "v_bias"): one for key, one in mim.items()}
    else:
        mim = {key.replace("mlp.fc1.", "mlp.w12."): one for key, one in mim.items()}
    model = build_model(name, 2, 100, 50, size_px=SIDE)
    model.body.network.blocks = model.body.network.blocks[:2]
    done = load_weights(model, save(tmp_path, {"module": mim}), name)
    assert {"mask_token", "lm_head.weight"} <= set(done.left_out)
    assert_loaded(model, network)


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("timm:test_vit", lambda: published(), r"does not fit timm:test_vit.*conv1\.weight"),
        ("timm:test_vit", lambda: random_state("test_vit2", img_size=SIDE)[1], "does not fit timm:test_vit"),
        ("timm:test_resnet", lambda: random_state("test_vit")[1], "does not fit timm:test_resnet"),
        ("resnet18", lambda: random_state("resnet34")[1], r"\d+ unknown \(layer1\.2"),
    ],
)
def test_weights_of_another_network_are_refused_and_the_model_is_kept(tmp_path, name, state, message):
    model = build_model(name, 2, 100, 50, size_px=SIDE)
    before = copy_of(model)
    with pytest.raises(InputError, match=message):
        load_weights(model, save(tmp_path, state()), name)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_timms_weights_are_given_as_a_file(tmp_path):
    with pytest.raises(InputError, match=r"model\.safetensors on its page"):
        load_weights(fresh("timm:test_vit", size_px=SIDE), "imagenet", "timm:test_vit")
    state = random_state("test_convnext")[1] | {"head.fc.weight": torch.zeros(5, 4), "head.fc.bias": torch.zeros(5)}
    model = fresh("timm:test_convnext", size_px=SIDE)
    done = load_weights(model, save(tmp_path, state), "timm:test_convnext")
    assert torch.equal(model.state_dict()["neck.head.norm.weight"], state["head.norm.weight"])
    assert done.left_out == ["head.fc.weight", "head.fc.bias"]
