"""Settings of what is trained: the classifier, the network that finds lungs, ensembles, and suspect labels."""

import math
from dataclasses import dataclass, field
from typing import Literal

from conf.bounds import above, at_least, bounded, check, require


@dataclass(frozen=True)
class Training:
    """Training: turns a table into a checkpoint and an MLflow run, by training/train.py."""

    model: str = "densenet121"
    """network: `simple_cnn`, `resnet10_half`, the name of any torchvision classifier, or `timm:` and the name of one of
    timm's, such as timm:vit_base_patch16_224"""
    weights: str = ""
    """starting weights: `imagenet`, a name of torchvision's such as DenseNet121_Weights.IMAGENET1K_V1, a file, or a
    registered model as models:/NAME@ALIAS; empty: random"""
    tabular: bool = False
    """whether age, sex and view join the image before the last layer"""
    loss: Literal["binary", "cross_entropy"] = "binary"
    """`binary`: one loss per finding, unknown labels left out; `cross_entropy`: each image has exactly one class"""
    label_smoothing: float = bounded(0.0, lambda value: 0 <= value < 1, "0 or more, below 1")
    """share of cross-entropy's target that is spread evenly over all classes"""
    box_weight: float = at_least(0, 0.0)
    """weight of the loss on the place of a finding, for films whose boxes are known, against the loss of one label; 0:
    boxes are not used"""
    lung_weight: float = at_least(0, 0.0)
    """weight of the loss that keeps a finding's map inside the outline of the lungs, for films with a mask (etl.masks),
    against the loss of one label; 0: masks are not used"""
    size_px: int = 256
    """side of the network's input, pixels; one of the table's stored sizes"""
    map_stride: int = bounded(0, lambda value: value in (0, 4, 8, 16), "0, 4, 8 or 16")
    """pixels of the input per cell of the heat maps: fewer show smaller findings and take more time; 0: the network's
    own, 32 for most"""
    sharpness: float = bounded(0.0, lambda value: value == 0 or 0.01 <= value < math.inf, "0, or at least 0.01")
    """how a finding's logit comes from its map: 0 is the mean over all places; the larger, the more the strongest place
    counts (log-sum-exp pooling, 1 to 10)"""
    head_epochs: int = at_least(0, 0)
    """epochs of a first stage that trains only the last layer; the second stage starts from its best epoch"""
    head_learning_rate: float = above(0, 1e-3)
    """largest learning rate of the first stage (training.head_epochs)"""
    epochs: int = at_least(0, 10)
    """passes over the training split in which all weights are trained; 0: only the first stage
    (training.head_epochs)"""
    batch_size: int = at_least(1, 16)
    """images per rank and step"""
    streams: int = at_least(0, 0)
    """parallel streams into which the training split is divided, a multiple of the ranks; with the same streams and the
    same images per step, a step has the same images on any number of ranks; 0: one stream per rank"""
    accumulation: int = at_least(1, 1)
    """parts in which a rank computes a step, one after the other, to save memory"""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` (bf16 if the devices of all ranks multiply it fast, otherwise fp32), `fp32`, or `bf16` or `fp16` where
    torch's autocast allows it; weights and validation stay fp32"""
    compile: bool = False
    """whether torch.compile is used; it takes minutes at the first step"""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """`adamw`, `adam` or `sgd` (Nesterov momentum 0.9)"""
    learning_rate: float = above(0, 1e-3)
    """largest learning rate of the schedule, for one step of all ranks"""
    reference_batch: int = at_least(0, 0)
    """images per step for which learning_rate is meant: the rate is multiplied by the actual images per step of all
    ranks, divided by this number; 0: no scaling"""
    schedule: Literal["one_cycle", "cosine", "plateau", "constant"] = "one_cycle"
    """course of the learning rate: `one_cycle` (moves the momentum too), `cosine` to 0, `plateau` (a tenth when the
    validation loss stops falling) or `constant`"""
    warmup_epochs: float = at_least(0, 0.0)
    """epochs in which the learning rate rises from a hundredth; must be 0 with one_cycle, which has its own rise"""
    plateau_patience: int = at_least(0, 1)
    """validations without a smaller loss after which `plateau` lowers the learning rate"""
    patience: int = at_least(0, 0)
    """epochs without a better validation after which training stops; 0: never"""
    choose_by: Literal["auroc", "loss", "top_1"] = "auroc"
    """measure that decides which epoch is the best: `auroc` (mean over the findings), `loss`, or `top_1` accuracy of
    classes"""
    weight_decay: float = at_least(0, 1e-4)
    """weight decay of the optimizer, per step and unit of learning rate"""
    layer_decay: float = bounded(1.0, lambda value: 0 < value <= 1, "above 0, at most 1")
    """share of the learning rate above it that each layer of the network has, from the head down to the input; 1: all
    layers have the same rate"""
    drop_path: float = bounded(-1.0, lambda value: value == -1 or 0 <= value < 1, "0 or more, below 1, or -1")
    """largest probability with which a residual block is left out in a training step (stochastic depth); -1: the
    network's own, which is 0 for most"""
    clip_norm: float = at_least(0, 0.0)
    """largest norm of the gradients of a step; 0: no limit"""
    freeze_batchnorm: bool = False
    """whether BatchNorm keeps the statistics that came with the starting weights"""
    sync_batchnorm: bool = False
    """whether BatchNorm's statistics of a step are those of all ranks; on GPUs only"""
    pos_weight_max: float = at_least(1, 20.0)
    """ceiling of the weight of a positive label (negatives per positive in the training split)"""
    checkpoint_steps: int = at_least(0, 0)
    """steps between saved states; 0: a state every five minutes; there is always one after each epoch"""
    delta_version: int = at_least(-1, -1)
    """version of the table; -1: the one that card.json names, the newest"""
    seed: int = at_least(0, 0)
    """seed of the weights, the order of the row groups and the augmentation"""
    device: Literal["auto", "cpu", "cuda", "hpu"] = "auto"
    """`auto` (cuda if torch sees a GPU, otherwise cpu), `cpu`, `cuda` or `hpu`; on GPUs, each rank of a host needs one
    of its own"""
    threads: int = at_least(0, 0)
    """CPU threads of a rank; 0: OMP_NUM_THREADS if it is set, otherwise one per physical core of the rank's share"""
    bind_cores: bool = True
    """whether each of several ranks of a host keeps to cores of its own, of one NUMA node; on CPUs only"""
    cache_dir: str = ""
    """folder on a local disk that keeps what was read from a table in a store, for later epochs and for all trainings
    of this host; empty: no cache"""
    cache_gb: float = above(0, 30)
    """largest size of that cache, in units of 10**9 bytes; what does not fit is read from the store in each epoch"""
    experiment: str = bounded("chexscale", str.strip, "a name that is not blank")
    """MLflow experiment that the run belongs to"""

    tensorboard: bool = False
    """whether the metrics of the MLflow run are also written as TensorBoard's event files, into tensorboard/ of the
    workspace"""

    @property
    def exclusive(self) -> bool:
        """Whether each image has exactly one of the findings, which are classes."""
        return self.loss == "cross_entropy"

    def __post_init__(self):
        check(self, "training")
        rise, smoothing = self.warmup_epochs, self.label_smoothing
        require(self.epochs or self.head_epochs, "training.epochs", 0, "1 or more, or 0 with training.head_epochs")
        require(not rise or rise < self.epochs, "training.warmup_epochs", rise, "fewer than epochs")
        expected = "0 with training.schedule one_cycle"
        require(not rise or self.schedule != "one_cycle", "training.warmup_epochs", rise, expected)
        if not self.exclusive:
            expected = "top_1 with training.loss cross_entropy only"
            require(self.choose_by != "top_1", "training.choose_by", self.choose_by, expected)
            require(not smoothing, "training.label_smoothing", smoothing, "0 without training.loss cross_entropy")


@dataclass(frozen=True)
class Lungs:
    """Lungs: a network that finds the lungs, trained on a table with masks by training/lungs.py."""

    size_px: int = bounded(128, lambda side: side % 16 == 0 and 64 <= side <= 512, "a multiple of 16 from 64 to 512")
    """side of the network's input and of its map, pixels; the smallest stored size that is not below it is reduced to
    it"""
    epochs: int = at_least(1, 12)
    """passes over the films of the training split that have a mask"""
    batch_size: int = at_least(2, 16)
    """films per step"""
    learning_rate: float = above(0, 3e-3)
    """largest learning rate of the schedule (one cycle of AdamW)"""
    seed: int = at_least(0, 0)
    """seed of the weights, the order of the films and the augmentation"""
    registered_model: str = bounded("chexscale-lungs", str.strip, "a name that is not blank")
    """name in the MLflow registry, for inference/lungs.py"""
    experiment: str = bounded("chexscale-lungs", str.strip, "a name that is not blank")
    """MLflow experiment of these trainings"""

    def __post_init__(self):
        check(self, "lungs")


@dataclass(frozen=True)
class Ensemble:
    """Ensemble: makes one model of several finished trainings, by training/ensemble.py."""

    members: list[str] = field(default_factory=list)
    """workspaces of two or more trainings on the same version of the same table"""
    method: Literal["mean", "weights"] = "mean"
    """how calibrated probabilities are combined: by their `mean`, or by `weights` (one per finding, or one for all
    classes) that are fitted on the validation split"""

    def __post_init__(self):
        check(self, "ensemble")


@dataclass(frozen=True)
class LabelQuality:
    """Label quality: finds labels of a table that are probably wrong, by training/label_quality.py."""

    trainings: list[str] = field(default_factory=list)
    """workspaces of finished trainings that predict this table's images, such as one per fold; a training predicts its
    validation and test split; empty list: the training of this workspace"""
    min_labels: int = at_least(2, 20)
    """number of known labels of each value, present and absent, that a finding needs; findings with fewer are left
    out"""
    shown: int = at_least(1, 50)
    """largest number of suspects of a finding that are shown on the page and listed for judging"""

    def __post_init__(self):
        check(self, "label_quality")
