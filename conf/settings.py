"""Every knob of CheXScale, one line with its unit under each.

`conf/*.yaml` hold one scenario each and only what differs from here; `--config FILE` chooses one (default
conf/demo.yaml), `--section.key value` changes one knob, `--print_config` shows the resolved tree, `--help` all of it.
"""

import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import jsonargparse

from conf.errors import InputError

DEMO_CONFIG = Path(__file__).parent / "demo.yaml"
LAYOUTS = ("nih", "classes")
FORMATS = ("nih", "chexpert", "csv", "dicom", "classes")
UNCERTAIN = ("unknown", "zero", "one")
SPLIT_RULES = ("source", "lists", "hashed")
VIEWS = ("PA", "AP", "LATERAL")
SQUARES = ("pad", "stretch")
INTENSITIES = ("none", "percentile", "clahe")
ENSEMBLES = ("mean", "weights")
MODES = ("int8", "fp16", "fp32", "onnx", "torch")
# Settings that say what one run shall do.
ONCE = ("--etl.rebuild", "--training.resume", "--jobs.retention_hours", "--jobs.keep_versions")
ONCE += ("--inference.version", "--inference.why")
TRAINING_CHOICES = {
    "device": ("auto", "cpu", "cuda", "hpu"),
    "precision": ("fp32", "bf16", "fp16"),
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("one_cycle", "cosine", "plateau", "constant"),
    "loss": ("binary", "cross_entropy"),
    "choose_by": ("auroc", "loss", "top_1"),
}


def _require(valid: object, key: str, got: object, expected: str) -> None:
    if not valid:
        raise InputError(f"{key} is {got!r}, expected {expected}")


@dataclass(frozen=True)
class Phantoms:
    """Generated radiograph-like images in NIH format, for demonstration and tests."""

    num_images: int = 2000
    """images"""
    size_px: int = 1024
    """side of the square PNGs, pixels"""
    seed: int = 0
    """the same seed gives the same files"""
    layout: str = "nih"
    """`nih`, or `classes`: a folder per class for etl.format classes, of the films with one finding or none"""

    def __post_init__(self):
        _require(self.layout in LAYOUTS, "phantoms.layout", self.layout, f"one of {', '.join(LAYOUTS)}")
        _require(
            self.num_images >= 100, "phantoms.num_images", self.num_images, "at least 100, so that each split gets some"
        )
        _require(self.size_px >= 256, "phantoms.size_px", self.size_px, "at least 256 pixels")
        _require(self.seed >= 0, "phantoms.seed", self.seed, "at least 0")


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what, for etl.format csv; an empty name: the table has none."""

    label_file: str = "labels.csv"
    """the table, below the source"""
    image: str = "image"
    """paths of the images below the source"""
    patient: str = "patient"
    """empty: every image is of another patient"""
    findings: list[str] = field(default_factory=list)
    """cells 1, 0, -1 uncertain or empty; none named: all columns without another role"""
    split: str = ""
    """train, val or test; empty: by a hash of the patient"""
    follow_up: str = ""
    """number of the study of this patient, from 0"""
    age: str = ""
    """years, or with a unit as in 018M"""
    sex: str = ""
    """F or M, or words that begin so"""
    view: str = ""
    """PA, AP or LATERAL"""

    def __post_init__(self):
        _require(self.image, "etl.columns.image", self.image, "the name of a column")
        findings = self.findings
        _require(len(set(findings)) == len(findings), "etl.columns.findings", findings, "different columns")


@dataclass(frozen=True)
class Quality:
    """Which images are put into quarantine for what they show; each check is on or off by itself."""

    min_side_px: int = 128
    """images whose shorter side is below this are out; 0: any size"""
    constant: bool = True
    """out: one grey value, or almost"""
    clipped: bool = True
    """out: so many pixels at the ends of the range that the film is lost"""
    inverted: bool = True
    """out: bones dark, air bright"""
    lateral: bool = False
    """out: looks like a lateral view, whatever the label file says"""
    duplicates: bool = True
    """out: same stored pixels as another image of the same patient; the first stays"""
    duplicates_across_patients: bool = True
    """out: same stored pixels as an image of another patient, who may be in another split; the first stays"""

    def __post_init__(self):
        _require(self.min_side_px >= 0, "etl.quality.min_side_px", self.min_side_px, "0 or more pixels")


@dataclass(frozen=True)
class Etl:
    """Images and label file to Delta tables: etl/preprocess.py."""

    source: str = "phantoms"
    """folder in the layout of etl.format, or `phantoms`: generated into the workspace where missing"""
    format: str = "nih"
    """`nih` (ChestX-ray14), `chexpert`, `csv`: any table, `dicom`: files, with a table or without, or `classes`:
    a folder per class, in colour"""
    columns: Columns = field(default_factory=Columns)
    """of the table, for etl.format csv and dicom"""
    uncertain: str = "unknown"
    """what a label of -1 becomes: `unknown`, `zero` or `one`"""
    image_folders: list[str] = field(default_factory=lambda: ["images", "images_*/images"])
    """folders below the source that hold the images, glob patterns; for etl.format nih"""
    views: list[str] = field(default_factory=list)
    """PA, AP, LATERAL: views to keep; none named: all, also unknown ones"""
    exclude: list[str] = field(default_factory=list)
    """files with names of images to leave out, the first word or cell of each line"""
    quality: Quality = field(default_factory=Quality)
    """checks of the pixels"""
    sizes_px: list[int] = field(default_factory=lambda: [256, 512])
    """sides of the stored squares, pixels; one binary column each"""
    square: str = "pad"
    """how an image becomes a square: `pad` with black keeps its proportions, `stretch` fills the square"""
    intensity: str = "none"
    """of the grey values: `none`, `percentile` (0.5 to 99.5 over the full range) or `clahe` (contrast by region)"""
    split: str = "source"
    """who is in which split: `source` (official lists, valid.csv, split column, split folders; hashed where it has
    none), `lists` (train_list.txt, val_list.txt and test_list.txt in etl.split_lists), or `hashed`"""
    split_lists: str = ""
    """folder with the lists of etl.split lists; labels in them (CheXNet's lists) replace those of the label file"""
    val_fraction: float = 0.125
    """share of the train_val patients that validate, 0..1 (0.125 of NIH's 28,008 gives the 70:10 of CheXNet, 0.3 the
    70:30 of Godonou et al.)"""
    test_fraction: float = 0.2
    """share of all patients that test, 0..1, where the split is hashed"""
    seed: int = 0
    """of the validation patients and the order of the rows"""
    rows_per_row_group: int = 128
    """rows; the unit that a training rank reads"""
    rows_per_file: int = 1024
    """rows, about; the unit of work of a Spark task"""
    max_quarantined_fraction: float = 0.1
    """share of bad images above which the job fails and the table keeps its old version, 0..1"""
    table: str = ""
    """folder or address (s3://bucket/name, abfss://, ...) of the Delta tables; empty: in the workspace"""
    rebuild: bool = False
    """decode every image again and replace the table, whatever it holds"""

    def __post_init__(self):
        _require(self.format in FORMATS, "etl.format", self.format, f"one of {', '.join(FORMATS)}")
        for key, allowed in (
            ("uncertain", UNCERTAIN),
            ("split", SPLIT_RULES),
            ("square", SQUARES),
            ("intensity", INTENSITIES),
        ):
            _require(getattr(self, key) in allowed, f"etl.{key}", getattr(self, key), f"one of {', '.join(allowed)}")
        _require(set(self.views) <= set(VIEWS), "etl.views", self.views, f"some of {', '.join(VIEWS)}")
        _require(
            (self.split == "lists") == bool(self.split_lists),
            "etl.split_lists",
            self.split_lists,
            "a folder with --etl.split lists, and nothing without",
        )
        _require(0 < self.test_fraction < 1, "etl.test_fraction", self.test_fraction, "a share between 0 and 1")
        sizes = self.sizes_px
        _require(sizes and len(set(sizes)) == len(sizes), "etl.sizes_px", sizes, "one or more different sides")
        _require(all(32 <= size <= 4096 for size in sizes), "etl.sizes_px", sizes, "sides of 32 to 4096 pixels")
        _require(0 <= self.seed < 2**32, "etl.seed", self.seed, "0 to 2**32 - 1")
        _require(0 < self.val_fraction < 1, "etl.val_fraction", self.val_fraction, "a share between 0 and 1")
        _require(self.rows_per_row_group >= 1, "etl.rows_per_row_group", self.rows_per_row_group, "at least 1 row")
        _require(
            self.rows_per_file >= self.rows_per_row_group,
            "etl.rows_per_file",
            self.rows_per_file,
            f"at least etl.rows_per_row_group ({self.rows_per_row_group})",
        )
        _require(
            0 <= self.max_quarantined_fraction <= 1,
            "etl.max_quarantined_fraction",
            self.max_quarantined_fraction,
            "a share of 0 to 1",
        )


@dataclass(frozen=True)
class Training:
    """Table to checkpoint and MLflow run: training/train.py."""

    model: str = "densenet121"
    """`simple_cnn`, `resnet10_half`, or the name of any torchvision classifier"""
    weights: str = ""
    """to start from: `imagenet`, a name of torchvision's such as DenseNet121_Weights.IMAGENET1K_V1, a file, or a
    registered model as models:/NAME@ALIAS; empty: random"""
    tabular: bool = False
    """whether age, sex and view join the image before the last layer"""
    loss: str = "binary"
    """`binary`: each finding by itself, unknown labels left out, or `cross_entropy`: each image is of one class"""
    label_smoothing: float = 0.0
    """share of cross-entropy's target that is spread over all classes, 0..1"""
    size_px: int = 256
    """which stored resolution is read: the side of the network's input, pixels"""
    head_epochs: int = 0
    """passes of a stage of its own before the others, in which only the last layer learns; its best epoch goes on"""
    head_learning_rate: float = 1e-3
    """of that stage"""
    epochs: int = 10
    """passes over the training split, in which all weights learn"""
    batch_size: int = 16
    """images per rank and step"""
    streams: int = 0
    """parts of the split that are read side by side, a multiple of the ranks: with the same number, and images per step
    of all ranks, a step has the same images on any number of ranks; 0: one per rank"""
    accumulation: int = 1
    """parts in which a rank computes a step, one after the other, to save memory"""
    precision: str = "fp32"
    """`fp32`, or `bf16` or `fp16` where torch's autocast allows it; weights and validation stay fp32"""
    compile: bool = False
    """torch.compile, which takes minutes at the first step"""
    optimizer: str = "adamw"
    """`adamw`, `adam` or `sgd` (Nesterov momentum 0.9)"""
    learning_rate: float = 1e-3
    """largest of the schedule, per step of the whole world"""
    reference_batch: int = 0
    """images per step that learning_rate is meant for: it is scaled by those of all ranks over these; 0: not scaled"""
    schedule: str = "one_cycle"
    """`one_cycle` (which moves the momentum too), `cosine` to 0, `plateau` (a tenth when the validation loss stops
    falling) or `constant`"""
    warmup_epochs: float = 0.0
    """epochs in which the rate rises from a hundredth; 0 with one_cycle, which has a rise of its own"""
    plateau_patience: int = 1
    """validations without a smaller loss that the plateau waits for"""
    patience: int = 0
    """epochs without a better validation after which training stops; 0: never"""
    choose_by: str = "auroc"
    """which validation is the best: `auroc`, the mean over the findings, `loss`, or, of classes, `top_1` accuracy"""
    weight_decay: float = 1e-4
    """of the optimizer, per step and unit of learning rate"""
    clip_norm: float = 0.0
    """largest norm of the gradients of a step; 0: any"""
    freeze_batchnorm: bool = False
    """whether BatchNorm keeps the statistics that the weights came with"""
    sync_batchnorm: bool = False
    """whether BatchNorm's statistics of a step are those of all ranks; GPUs only"""
    pos_weight_max: float = 20.0
    """ceiling of the weight of a positive label (negatives per positive in the training split)"""
    resume: bool = False
    """go on where an interrupted training of this workspace has saved its state last"""
    checkpoint_steps: int = 0
    """steps between saved states; 0: every five minutes, and after each epoch"""
    delta_version: int = -1
    """version of the table; -1: the one that card.json names, the newest"""
    seed: int = 0
    """of the weights, the order of the row groups and the augmentation"""
    device: str = "auto"
    """`auto` (cuda where every rank of the host has a GPU of its own, otherwise cpu), `cpu`, `cuda` or `hpu`"""
    threads: int = 0
    """CPU threads of a rank; 0 shares the cores among the ranks of the host"""
    experiment: str = "chexscale"
    """MLflow experiment"""

    @property
    def exclusive(self) -> bool:
        """Whether each image is of exactly one of the findings, which are classes."""
        return self.loss == "cross_entropy"

    def __post_init__(self):
        _require(self.epochs >= 1, "training.epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 1, "training.batch_size", self.batch_size, "at least 1 image")
        for key in ("learning_rate", "head_learning_rate"):
            _require(0 < getattr(self, key) < math.inf, f"training.{key}", getattr(self, key), "a positive number")
        _require(0 <= self.label_smoothing < 1, "training.label_smoothing", self.label_smoothing, "0 or more, below 1")
        _require(0 <= self.weight_decay < math.inf, "training.weight_decay", self.weight_decay, "0 or more")
        _require(1 <= self.pos_weight_max < math.inf, "training.pos_weight_max", self.pos_weight_max, "1 or more")
        for key in ("streams", "reference_batch", "plateau_patience", "patience", "checkpoint_steps", "head_epochs"):
            _require(getattr(self, key) >= 0, f"training.{key}", getattr(self, key), "at least 0")
        _require(self.accumulation >= 1, "training.accumulation", self.accumulation, "at least 1")
        for key in ("warmup_epochs", "clip_norm"):
            _require(0 <= getattr(self, key) < math.inf, f"training.{key}", getattr(self, key), "0 or more")
        _require(self.warmup_epochs < self.epochs, "training.warmup_epochs", self.warmup_epochs, "fewer than epochs")
        warm_up = self.warmup_epochs
        _require(
            not warm_up or self.schedule != "one_cycle",
            "training.warmup_epochs",
            warm_up,
            "0 with training.schedule one_cycle",
        )
        for key, allowed in TRAINING_CHOICES.items():
            _require(
                getattr(self, key) in allowed, f"training.{key}", getattr(self, key), f"one of {', '.join(allowed)}"
            )
        if not self.exclusive:
            wrong = self.choose_by == "top_1"
            _require(not wrong, "training.choose_by", self.choose_by, "top_1 with training.loss cross_entropy only")
            smoothing = self.label_smoothing
            _require(not smoothing, "training.label_smoothing", smoothing, "0 without training.loss cross_entropy")
        _require(self.seed >= 0, "training.seed", self.seed, "at least 0")
        _require(self.delta_version >= -1, "training.delta_version", self.delta_version, "a version, or -1")
        _require(self.threads >= 0, "training.threads", self.threads, "at least 0")
        _require(self.experiment.strip() != "", "training.experiment", self.experiment, "a name")


@dataclass(frozen=True)
class Ensemble:
    """Finished trainings to one evaluation: training/ensemble.py."""

    members: list[str] = field(default_factory=list)
    """workspaces of two or more trainings on the same version of the same table"""
    method: str = "mean"
    """of their calibrated probabilities: `mean`, or `weights`, per finding, fitted on the validation split"""

    def __post_init__(self):
        _require(self.method in ENSEMBLES, "ensemble.method", self.method, f"one of {', '.join(ENSEMBLES)}")


@dataclass(frozen=True)
class Inference:
    """Checkpoint to registered INT8 model: inference/register.py."""

    registered_model: str = "chexscale"
    """name in the MLflow registry"""
    num_calibration_images: int = 128
    """images of the training split that calibrate INT8"""
    num_attempts: int = 3
    """ways of quantising that are tried until the gate passes: as it is, with more images, with the most sensitive
    layers in FP32 (minutes for a small network, hours for a large one)"""
    batch_size: int = 16
    """images per request when AUROC and throughput are measured"""
    ten_crop: bool = False
    """whether the AUROC of ten-crop averages is measured too, which takes ten times as long"""
    max_mean_drop: float = 0.005
    """largest fall of the mean AUROC, from FP32 to INT8 and from the champion, that the gate accepts; of quantisation's
    fall counts the upper end of its 95% interval by patient"""
    max_finding_drop: float = 0.02
    """largest fall of a single finding's AUROC from FP32 to INT8 that the gate accepts, upper end too"""
    version: int = 0
    """registered version that inference/promote.py and lineage.py are about; 0: the challenger"""
    why: str = ""
    """reason for inference/promote.py and rollback.py to write down"""

    def __post_init__(self):
        name = self.registered_model
        _require(
            name.strip() != "" and not set("/:") & set(name), "inference.registered_model", name, "a name, no / or :"
        )
        calibration = self.num_calibration_images
        _require(calibration >= 1, "inference.num_calibration_images", calibration, "at least 1 image")
        _require(self.batch_size >= 1, "inference.batch_size", self.batch_size, "at least 1 image")
        _require(self.num_attempts in (1, 2, 3), "inference.num_attempts", self.num_attempts, "1, 2 or 3")
        _require(self.version >= 0, "inference.version", self.version, "a version, or 0")
        for key in ("max_mean_drop", "max_finding_drop"):
            drop = getattr(self, key)
            _require(-1 <= drop <= 1, f"inference.{key}", drop, "a fall of AUROC, -1 to 1 (negative: a gain)")


@dataclass(frozen=True)
class Scoring:
    """The champion over many images: inference/predict.py."""

    source: str = ""
    """folder or address (s3://bucket/folder, ...) of image files, or a workspace with a table; empty: this workspace's
    table"""
    output: str = ""
    """folder or address of the Delta table of scores; empty: scores/ in the workspace"""
    mode: str = "int8"
    """precision of the graph: int8, fp16, fp32, onnx or torch"""

    def __post_init__(self):
        _require(self.mode in MODES, "scoring.mode", self.mode, f"one of {', '.join(MODES)}")


@dataclass(frozen=True)
class Serving:
    """The champion as a REST service with a page: inference/serve.py. The API key, if any, is in CHEXSCALE_API_KEY."""

    host: str = "127.0.0.1"
    """address to listen on; another than this machine's own makes the service reachable from elsewhere"""
    port: int = 8000
    """TCP port; 0: any free one, which is printed"""
    mode: str = "int8"
    """precision of the graph: int8, fp16, fp32, onnx or torch"""
    allowed_hosts: list[str] = field(default_factory=list)
    """names under which the service may be called, beside localhost"""
    max_batch: int = 16
    """images per inference at most; those that wait together are computed together"""
    num_decoders: int = 0
    """processes that decode files; 0: one more than cores, so that none waits for its next file"""
    max_file_mb: float = 50
    """of one file; 10**6 bytes"""
    max_files: int = 64
    """of one request"""
    max_request_mb: float = 200
    """of one request with all its files; 10**6 bytes"""
    max_waiting: int = 512
    """files that may be in work at a time; more are refused with status 503"""
    max_waiting_mb: float = 1000
    """memory that their bytes may hold together; 10**6 bytes"""
    decode_s: float = 20
    """seconds in which one file must be decoded"""
    decode_mb: int = 2000
    """memory that decoding one file may take; 10**6 bytes"""
    upload_s: float = 30
    """seconds in which a request must have arrived whole"""
    requests_per_minute: int = 600
    """of one client address; 0: no limit"""
    reload_s: float = 5
    """seconds between two looks at which version is the champion"""

    def __post_init__(self):
        _require(0 <= self.port <= 65535, "serving.port", self.port, "a TCP port, or 0")
        _require(self.mode in MODES, "serving.mode", self.mode, f"one of {', '.join(MODES)}")
        for key in ("max_batch", "max_files", "max_waiting", "decode_mb"):
            _require(getattr(self, key) >= 1, f"serving.{key}", getattr(self, key), "at least 1")
        for key in ("max_file_mb", "max_request_mb", "max_waiting_mb", "upload_s", "decode_s", "reload_s"):
            _require(getattr(self, key) > 0, f"serving.{key}", getattr(self, key), "more than 0")
        for key in ("num_decoders", "requests_per_minute"):
            _require(getattr(self, key) >= 0, f"serving.{key}", getattr(self, key), "0 or more")


@dataclass(frozen=True)
class Jobs:
    """The local pipeline: jobs/pipeline.py."""

    num_ranks: int = 2
    """training processes that the pipeline starts with horovodrun"""
    retention_hours: int = 168
    """jobs/maintain.py keeps every version that was the newest within so many hours, whoever may be reading it"""
    keep_versions: list[int] = field(default_factory=list)
    """jobs/maintain.py keeps these too, beside those that a registered model or the last checkpoint was trained on"""

    def __post_init__(self):
        _require(self.num_ranks >= 1, "jobs.num_ranks", self.num_ranks, "at least 1 rank")
        _require(self.retention_hours >= 0, "jobs.retention_hours", self.retention_hours, "0 or more hours")


@dataclass(frozen=True)
class Settings:
    """All stages share one tree, so that each finds what the stage before it left."""

    workspace: str = "runs/demo"
    """folder that holds all that the stages write"""
    tracking_server: str = ""
    """of MLflow, such as http://host:5000, which keeps runs and registry; empty: mlflow.db in the workspace does"""
    phantoms: Phantoms = field(default_factory=Phantoms)
    etl: Etl = field(default_factory=Etl)
    training: Training = field(default_factory=Training)
    ensemble: Ensemble = field(default_factory=Ensemble)
    inference: Inference = field(default_factory=Inference)
    scoring: Scoring = field(default_factory=Scoring)
    serving: Serving = field(default_factory=Serving)
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self):
        server = self.tracking_server
        valid = not server or (server.startswith(("http://", "https://")) and not server.endswith("/"))
        _require(valid, "tracking_server", server, "an address such as http://host:5000, or nothing")

    def to_dict(self) -> dict:
        """Plain nested dict of the resolved settings, as logged with every run."""
        return asdict(self)


def load_settings(description: str, argv: list[str] | None = None) -> Settings:
    """Settings from `--config`, `--section.key value` and the defaults, in falling priority.

    description: shown by --help. argv: arguments without the program's name; None takes the command line's.
    An unknown key, a wrong type or a missing file ends the process with exit code 2 and a message that names it.
    """
    return load_arguments(description, "", lambda parser: None, argv)[0]


def load_arguments(
    description: str,
    usage: str,
    add_own: Callable[[jsonargparse.ArgumentParser], None],
    argv: list[str] | None = None,
) -> tuple[Settings, jsonargparse.Namespace]:
    """load_settings' for a command that has arguments of its own, such as files; second, what all were parsed to.

    usage: how its own are written, for --help. add_own: adds them to the parser.
    """
    argv = sys.argv[1:] if argv is None else argv
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    chosen = any(arg == "--config" or arg.startswith("--config=") for arg in argv)
    parser = jsonargparse.ArgumentParser(
        description=description,
        usage=" ".join(["%(prog)s [--config FILE] [--section.key VALUE ...]", usage]).rstrip(),
        # An abbreviated --config would be read on top of the demo's settings instead of replacing them.
        allow_abbrev=False,
        default_config_files=[] if chosen else [str(DEMO_CONFIG)],
    )
    parser.add_argument("--config", action="config", help="one scenario, YAML (default: conf/demo.yaml)")
    add_own(parser)
    parser.add_class_arguments(Settings, fail_untyped=True)
    parsed = parser.instantiate(parser.parse_args(argv))
    return Settings(**{stage.name: parsed[stage.name] for stage in fields(Settings)}), parsed


def with_same_arguments(command: str) -> str:
    """`command` with the arguments of this process, for messages: the next stage wants the same settings.

    Without those that are meant for once.
    """
    arguments, once = [], False
    for argument in sys.argv[1:]:
        starts = argument.startswith("--")
        once = argument.partition("=")[0] in ONCE if starts else once
        if not once:
            arguments.append(argument)
    return " ".join([command, *map(shlex.quote, arguments)])
