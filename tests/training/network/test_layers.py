import pytest
import torch

from conf.errors import InputError
from conf.settings import Training
from tests.training.toy_training import FROZEN, make_trainer, write_table
from training.network.build import build_model
from training.network.layers import learning_rate_shares
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology

# Parameters and the number of layers above each, the head's 0.
DEPTHS = {
    "resnet18": {"body.conv1.weight": 5, "body.bn1.weight": 5, "body.layer4.0.conv1.weight": 1},
    "swin_t": {"body.features.0.0.weight": 8, "body.features.7.0.attn.qkv.weight": 1, "body.norm.weight": 1},
    "densenet121": {"body.features.norm0.weight": 8, "body.features.norm5.weight": 1},
    "convnext_tiny": {"body.features.0.0.weight": 8, "neck.classifier.0.weight": 0},
    "vit_b_32": {
        "body.class_token": 13,
        "body.encoder.pos_embedding": 13,
        "body.encoder.layers.encoder_layer_0.ln_1.weight": 12,
        "body.encoder.ln.weight": 1,
    },
    "timm:test_vit": {"body.network.pos_embed": 7, "body.network.blocks.0.attn.qkv.weight": 6},
    "timm:test_resnet": {"body.network.layer4.0.conv1.weight": 1},
}


@pytest.mark.parametrize("name", DEPTHS)
def test_each_layer_has_a_share_of_the_rate_above_it(name):
    with torch.device("meta"):
        model = build_model(name, 2, 120, 60, size_px=64)
    shares = learning_rate_shares(model, name, 0.5)
    assert list(shares) == [key for key, _ in model.named_parameters()]
    for key, depth in (DEPTHS[name] | {"classifier.weight": 0, "classifier.bias": 0}).items():
        assert shares[key] == 0.5**depth, key


def test_a_network_of_one_layer_is_refused():
    model = build_model("simple_cnn", 2, 120, 60)
    model.body = torch.nn.Sequential(*list(model.body)[:4])
    with pytest.raises(InputError, match=r"layer_decay is 0\.9, but simple_cnn does not say"):
        learning_rate_shares(model, "simple_cnn", 0.9)


def test_the_trainer_steps_each_layer_at_its_rate(tmp_path):
    write_table(tmp_path / "table.parquet")
    settings = Training(**vars(FROZEN) | {"layer_decay": 0.5, "schedule": "constant", "learning_rate": 0.1})
    trainer = make_trainer(str(tmp_path / "table.parquet"), settings, Collectives(Topology.detect("cpu", {})), 0.0)
    rates = {id(one): group["lr"] for group in trainer.optimizer.param_groups for one in group["params"]}
    named = {name: rates[id(parameter)] for name, parameter in trainer.model.named_parameters()}
    # A toy of two convolutions, the first with BatchNorm.
    assert named == {
        **dict.fromkeys(["body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"], 0.025),
        **dict.fromkeys(["body.3.weight", "body.3.bias"], 0.05),
        **dict.fromkeys(["classifier.weight", "classifier.bias"], 0.1),
    }
