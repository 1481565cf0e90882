from functools import cache
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from conf.errors import InputError
from training.network.build import build_model
from training.network.weights import load_weights

FINDINGS = ["Edema", "Mass"]


def fresh(name="resnet18", num_findings=2, **options):
    torch.manual_seed(0)
    return build_model(name, num_findings, 100, 50, **options)


@cache
def weights_of(name, **options):
    torch.manual_seed(1)
    return torchvision.models.get_model(name, weights=None, **options).state_dict()


def published(name="resnet18", **options):
    """A torchvision network's state dict with weights of another seed."""
    return dict(weights_of(name, **options))


def save(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    return str(path)


def copy_of(model):
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("wrap", ["plain", "module", "state_dict"])
def test_a_torchvision_file_gives_body_and_neck(tmp_path, wrap):
    state = published()
    content = {
        "plain": state,
        "module": {f"module.{key}": tensor for key, tensor in state.items()},
        "state_dict": {"state_dict": state, "epoch": 3},
    }[wrap]
    model = fresh()
    before = copy_of(model)
    done = load_weights(model, save(tmp_path, content), "resnet18")
    for key, tensor in model.state_dict().items():
        expected = state[key.removeprefix("body.")] if key.startswith("body.") else before[key]
        assert torch.equal(tensor, expected), key
    assert len(done.loaded) == len(state) - 2
    assert done.fresh == ["classifier.weight", "classifier.bias"]
    assert [key.removeprefix("module.") for key in done.left_out] == ["fc.weight", "fc.bias"]
    assert "random: classifier.weight, classifier.bias; left in the file:" in done.describe()


def test_the_layer_norm_after_pooling_is_loaded_and_a_head_of_the_same_shape_is_not(tmp_path):
    model = fresh("convnext_tiny")
    state = {key.partition(".")[2]: tensor + 0.5 for key, tensor in model.state_dict().items() if "pixel" not in key}
    state |= {"classifier.2.weight": torch.zeros(2, 768), "classifier.2.bias": torch.zeros(2)}
    del state["weight"], state["bias"]
    done = load_weights(model, save(tmp_path, state), "convnext_tiny")
    assert torch.equal(model.state_dict()["neck.classifier.0.bias"], state["classifier.0.bias"])
    assert done.left_out == ["classifier.2.weight", "classifier.2.bias"]


def test_densenets_old_names_and_head_of_our_name(tmp_path):
    state = published("densenet121", num_classes=2)
    old = {}
    for key, tensor in state.items():
        if not key.endswith("num_batches_tracked"):
            for part in ("norm1", "norm2", "conv1", "conv2"):
                key = key.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.") if "denselayer" in key else key
            old[key] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    model = fresh("densenet121")
    head = model.classifier.weight.clone()
    done = load_weights(model, save(tmp_path, old), "densenet121")
    conv = "features.denseblock4.denselayer16.conv2.weight"
    assert torch.equal(model.state_dict()[f"body.{conv}"], state[conv])
    assert torch.equal(model.classifier.weight, head)
    assert done.left_out == ["classifier.weight", "classifier.bias"]


def test_a_second_head_stays_in_the_file(tmp_path):
    state = published("googlenet", init_weights=False, aux_logits=True)
    done = load_weights(fresh("googlenet"), save(tmp_path, state), "googlenet")
    assert {key.partition(".")[0] for key in done.left_out} == {"aux1", "aux2", "fc"}


def test_a_grey_first_convolution_gives_the_same_on_three_equal_channels(tmp_path):
    state = published()
    grey = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    state["conv1.weight"] = grey.weight.detach()
    model = fresh()
    done = load_weights(model, save(tmp_path, state), "resnet18")
    image = torch.rand(1, 1, 32, 32)
    assert torch.allclose(model.body.conv1(image.expand(-1, 3, -1, -1)), grey(image), atol=1e-5)
    assert "grey" in done.adapted["body.conv1.weight"]
    assert "body.conv1.weight spread from one grey channel" in done.describe()


def test_position_embeddings_are_interpolated(tmp_path):
    model = fresh("vit_b_32", size_px=96)
    model.body.encoder.layers = model.body.encoder.layers[:1]
    state = {key.removeprefix("body."): tensor for key, tensor in model.state_dict().items() if key.startswith("body.")}
    state |= {"encoder.pos_embedding": torch.full((1, 5, 768), 0.25), "heads.head.bias": torch.zeros(1000)}
    done = load_weights(model, save(tmp_path, state), "vit_b_32")
    assert torch.allclose(model.body.encoder.pos_embedding, torch.tensor(0.25))
    assert done.adapted == {"body.encoder.pos_embedding": "interpolated from 4 patches to 9"}
    assert done.left_out == ["heads.head.bias"]


def checkpoint(model, **changes):
    return {"weights": model.state_dict(), "model": "simple_cnn", "findings": FINDINGS, "settings": {}} | changes


@pytest.mark.parametrize(
    ("findings", "tabular", "takes_head"),
    [(FINDINGS, False, True), (FINDINGS[::-1], False, False), (["Mass"], False, False), (FINDINGS, True, False)],
)
def test_a_checkpoint_gives_its_head_to_the_same_findings_only(tmp_path, findings, tabular, takes_head):
    torch.manual_seed(1)
    trained = build_model("simple_cnn", 2, 1, 2)
    model = fresh("simple_cnn", len(findings), tabular=tabular)
    done = load_weights(model, save(tmp_path, checkpoint(trained)), "simple_cnn", findings=findings)
    assert torch.equal(model.body[0].weight, trained.body[0].weight)
    same_shape = model.classifier.weight.shape == trained.classifier.weight.shape
    assert (same_shape and torch.equal(model.classifier.weight, trained.classifier.weight)) == takes_head
    assert ("classifier.weight" in done.fresh, "classifier.weight" in done.left_out) == (not takes_head,) * 2
    assert (model.pixel_mean, model.pixel_std) == (100, 50)


def test_ancestors_of_the_weights_are_listed_nearest_first(tmp_path):
    foreign = load_weights(fresh(), save(tmp_path, published()), "resnet18")
    assert foreign.ancestors == [{"source": "weights.pth"}]
    lineage = {"run_id": "run", "delta_table_id": "table", "delta_version": 3, "commit": "0123abc"}
    ours = save(tmp_path, checkpoint(fresh()) | {"model": "resnet18", "ancestors": foreign.ancestors} | lineage)
    assert load_weights(fresh(), ours, "resnet18").ancestors == [
        {"source": "weights.pth"} | lineage,
        {"source": "weights.pth"},
    ]


def test_the_resolver_is_asked_for_a_registered_model(tmp_path):
    path = Path(save(tmp_path, checkpoint(fresh("simple_cnn"))))
    asked = []
    done = load_weights(
        fresh("simple_cnn"), "models:/chexscale@champion", "simple_cnn", resolve=lambda uri: asked.append(uri) or path
    )
    assert asked == ["models:/chexscale@champion"]
    assert done.loaded
    assert [origin["source"] for origin in done.ancestors] == ["models:/chexscale@champion"]
    with pytest.raises(InputError, match="no registry"):
        load_weights(fresh("simple_cnn"), "models:/chexscale/3", "simple_cnn")


def test_no_source_changes_nothing():
    model = fresh("simple_cnn")
    before = copy_of(model)
    done = load_weights(model, "", "simple_cnn")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert done.fresh == [key for key, _ in model.named_parameters()]
    assert done.describe() == "all weights are random"


def test_published_weights_are_found_in_torchs_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = published()
    for source, file in (("imagenet", "resnet18-f37072fd.pth"), ("ResNet18_Weights.IMAGENET1K_V1",) * 2):
        stored = tmp_path / "hub" / "checkpoints" / file
        if source == "imagenet":
            stored.parent.mkdir(parents=True)
            torch.save(state, stored)
        model = fresh()
        load_weights(model, source, "resnet18")
        assert torch.equal(model.body.conv1.weight, state["conv1.weight"])


def test_offline_the_message_says_where_the_file_goes(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    expected = rf"(?s)cannot be downloaded.*https://.*{tmp_path}/hub/checkpoints/resnet18-\w+\.pth.*TORCH_HOME.*FILE"
    with pytest.raises(InputError, match=expected):
        load_weights(fresh(), "imagenet", "resnet18")


def truncated(path):
    torch.save(published(), path)
    path.write_bytes(path.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no file at .*imagenet.*models:/"),
        (lambda path: path.mkdir(), "no file at"),
        (truncated, "not a readable weight file"),
        (lambda path: path.write_bytes(b""), "not a readable weight file"),
        (lambda path: path.write_text("<!DOCTYPE html><html>"), "begins with b'<!DOCTYPE html>"),
        (lambda path: torch.save(nn.Linear(1, 1), path), r"torch\.save\(network\.state_dict"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: torch.save({"epoch": 1}, path), "holds no state dict"),
        (lambda path: torch.save({}, path), "holds no state dict"),
        (lambda path: torch.save(published("resnet34"), path), r"does not fit resnet18: \d+ unknown \(layer1\.2"),
        (lambda path: torch.save(published("mobilenet_v3_small"), path), r"missing \(body\.conv1.*unknown \(features"),
        (
            lambda path: torch.save(published() | {"conv1.weight": torch.zeros(64, 2, 7, 7)}, path),
            r"1 of another shape \(body\.conv1\.weight \(64, 2, 7, 7\) instead of \(64, 3, 7, 7\)\)",
        ),
        (
            lambda path: torch.save(published() | {"bn1.weight": torch.full((64,), torch.nan)}, path),
            r"1 with NaN or infinity \(body\.bn1\.weight\)",
        ),
        (lambda path: torch.save(checkpoint(fresh("simple_cnn")), path), "a checkpoint of simple_cnn"),
    ],
)
def test_an_unusable_file_is_refused_and_the_model_kept(tmp_path, write, message):
    path = tmp_path / "weights.pth"
    write(path)
    model = fresh()
    before = copy_of(model)
    with pytest.raises(InputError, match=message):
        load_weights(model, str(path), "resnet18")
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("imagenet", "simple_cnn", "nobody has published"),
        ("ResNet50_Weights.IMAGENET1K_V1", "resnet18", r"resnet18 torchvision has ResNet18_Weights\.IMAGENET1K_V1"),
    ],
)
def test_weights_that_torchvision_lacks_are_refused(source, name, message):
    with pytest.raises(InputError, match=message):
        load_weights(fresh(name), source, name)
