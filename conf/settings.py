"""Every knob of CheXScale, with its bounds, its default, and one sentence that stands alone.

`conf/*.yaml` hold one scenario each and only what differs from here. conf/arguments.py reads them and the command line;
docs/settings.md lists the same for reading.
"""

import math
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from conf.bounds import MODALITIES, SIDES, above, at_least, between, bounded, check, require, share
from conf.servers import check_server
from conf.words import Split, View

Mode = Literal["int8", "fp16", "fp32", "onnx", "torch"]
MODES = get_args(Mode)
LABELLERS = {"padchest": ("physician", "rnn"), "mimic": ("chexpert", "negbio")}
"""etl.format -> the words for who labelled its films"""


@dataclass(frozen=True)
class Phantoms:
    """Phantoms: generated, radiograph-like images in NIH format, for the demo and the tests."""

    num_images: int = at_least(100, 2000)
    """number of images; with fewer than 100 a split could get none"""
    size_px: int = at_least(256, 1024)
    """side of the square PNGs, pixels"""
    seed: int = at_least(0, 0)
    """seed of the random numbers; the same seed gives the same files"""
    layout: Literal["nih", "classes"] = "nih"
    """`nih`, or `classes`: a folder per class for etl.format classes, with the films that have one finding or none"""
    hospital: Literal["a", "b"] = "a"
    """where the films are taken: `b` has harder films with more noise, more of them at the bedside, and fewer findings,
    for testing a model of `a` elsewhere"""
    masks: bool = False
    """whether the exact lungs of each film are written into a folder `masks`, which etl.masks can name; for layout
    nih"""
    boxes: Literal["test", "all"] = "test"
    """films whose findings have boxes in the box file: those of the test list, as in NIH's, or all; for layout nih"""

    def __post_init__(self):
        check(self, "phantoms")
        expected = "false with --phantoms.layout classes"
        require(not self.masks or self.layout == "nih", "phantoms.masks", self.masks, expected)


@dataclass(frozen=True)
class Columns:
    """Columns of the label table, for etl.format csv and dicom; an empty name: the table has no such column."""

    label_file: str = "labels.csv"
    """path of the table below the source"""
    image: str = bounded("image", bool, "the name of a column")
    """column with the path of each image below the source"""
    patient: str = "patient"
    """column with the patient; empty: every image belongs to a patient of its own, or for DICOM to its Patient ID"""
    findings: list[str] = field(default_factory=list)
    """columns with the findings, whose cells are 1, 0, -1 (uncertain) or empty; empty list: every column
    without another role. For etl.format padchest: the labels that become findings"""
    split: str = ""
    """column with train, val or test, or other words that docs/data.md lists; empty: a hash of the patient chooses the
    split"""
    follow_up: str = ""
    """column with the number of the study within its patient, from 0"""
    age: str = ""
    """column with the age in years, or with a unit as in 018M"""
    sex: str = ""
    """column with the sex: F, M, or other words that docs/data.md lists"""
    view: str = ""
    """column with the view position: PA, AP, LATERAL, or other words that docs/data.md lists"""

    def __post_init__(self):
        check(self, "etl.columns")
        findings = self.findings
        require(len(set(findings)) == len(findings), "etl.columns.findings", findings, "different columns")


@dataclass(frozen=True)
class Labels:
    """Labels of published collections: whose they are, and which of them count."""

    labeller: Literal["", "physician", "rnn", "chexpert", "negbio"] = ""
    """who made the labels that are read. With etl.format padchest: `physician`, `rnn`, or empty for both. With mimic:
    `chexpert`, `negbio`, or empty for chexpert"""
    readers: str = bounded("majority", str.strip, "majority, any, or the name of a reader")
    """how several readers of a film are joined, for etl.format vindr: `majority` (more than half of them), `any`, or
    the name of one reader such as R8, whose films alone are used"""
    min_images: int = at_least(0, 100)
    """number of listed images with a label below which it becomes no finding, for etl.format padchest, unless
    etl.columns.findings names it"""
    leave_out: list[str] = field(default_factory=lambda: ["exclude", "suboptimal study"])
    """labels whose images are left out, for etl.format padchest"""

    def __post_init__(self):
        check(self, "etl.labels")


@dataclass(frozen=True)
class Quality:
    """Checks that send an image to quarantine; each can be switched off by itself."""

    min_side_px: int = at_least(0, 128)
    """quarantine images whose shorter side is below this, pixels; 0: accept any size"""
    constant: bool = True
    """quarantine images that have only one grey value, or nearly"""
    clipped: bool = True
    """quarantine images with so many black or white pixels that too little of the film is left"""
    inverted: bool = True
    """quarantine images on which bones are dark and air is bright"""
    lateral: bool = False
    """quarantine images that look like a lateral view, whatever the label file says"""
    no_lungs: bool = False
    """quarantine images on which no lungs are found"""
    rotated: bool = False
    """quarantine images on which lungs are found only once they are turned by a quarter, half or three quarters"""
    lungs_cut: bool = False
    """quarantine images whose lungs reach an edge of the film"""
    duplicates: bool = True
    """quarantine images with the same stored pixels as another image of the same patient; the first one stays"""
    duplicates_across_patients: bool = True
    """quarantine images with the same stored pixels as an image of another patient, who may be in another split; the
    first one stays"""

    def __post_init__(self):
        check(self, "etl.quality")


@dataclass(frozen=True)
class Dicom:
    """Which DICOM files are films of a chest for reading, in sources of every format; the others go to quarantine."""

    modalities: list[str] = field(default_factory=lambda: ["CR", "DX", "RG"], metadata=MODALITIES)
    """modalities that are kept: computed, digital and conventional radiographs; a file that names none is kept too"""
    burned_in: bool = False
    """keep films whose tags say that annotations are burned into the pixels, which may show the patient's name"""

    def __post_init__(self):
        check(self, "etl.dicom")


@dataclass(frozen=True)
class Etl:
    """ETL: turns images and a label file into Delta tables, by etl/preprocess.py."""

    source: str = "phantoms"
    """folder in the layout of etl.format, or `phantoms`, to generate phantoms in the workspace if it has none"""
    format: Literal[
        "nih", "chexpert", "csv", "dicom", "classes", "padchest", "vindr", "mimic", "rsna", "siim", "kermany", "experts"
    ] = "nih"
    """layout of the source: `nih` (ChestX-ray14), `chexpert`, `csv` (any label table), `dicom` (files, with or without
    a table), `classes` (a folder per class, images in colour), or that of a published collection: `padchest`, `vindr`
    (VinDr-CXR), `mimic` (MIMIC-CXR-JPG), `rsna` (pneumonia), `siim` (pneumothorax), `kermany` (children with pneumonia)
    or `experts` (Google's adjudicated labels of NIH films)"""
    sources: list[str] = field(default_factory=list)
    """scenario files of several sources that become one table, each as FILE or NAME=FILE; the etl section of each says
    how its source is read, and which split and findings it has; empty list: the one source of etl.source"""
    shared_patients: list[str] = field(default_factory=list)
    """names of those of etl.sources that name the same patients alike, so that a patient may be in one split of all of
    them only; patients of all other sources are different people, whatever their names"""
    columns: Columns = field(default_factory=Columns)
    """columns of the label table"""
    labels: Labels = field(default_factory=Labels)
    """labels of published collections"""
    dicom: Dicom = field(default_factory=Dicom)
    """which DICOM files are films of a chest for reading"""
    uncertain: Literal["unknown", "zero", "one"] = "unknown"
    """what a label of -1 becomes: `unknown`, `zero` or `one`"""
    findings: list[str] = field(default_factory=list)
    """findings of the table, in this order: each a name of the source or a synonym of it that docs/data.md explains, or
    NAME=A+B for a merger (present if any part is, absent if all are, otherwise unknown); empty list: all findings of
    the source under its own names"""
    image_folders: list[str] = field(default_factory=lambda: ["images", "images_*/images"])
    """folders below the source that hold the images, as glob patterns, for etl.format nih"""
    views: list[View] = field(default_factory=list)
    """view positions to keep: PA, AP, LATERAL; empty list: all images, also those of unknown view"""
    exclude: list[str] = field(default_factory=list)
    """files that list the images to leave out; each line is a name, or begins with one as its first word or cell"""
    compared_labels: str = ""
    """scenario file of another source of labels for the same images, as FILE or NAME=FILE, with which the dataset card
    compares this one's; empty: none"""
    corrections: list[str] = field(default_factory=list)
    """tables of labels that people have corrected, with the columns image, finding, label, who and why, applied one
    after the other; docs/data.md explains them"""
    quality: Quality = field(default_factory=Quality)
    """checks that send an image to quarantine"""
    sizes_px: list[int] = field(default_factory=lambda: [256, 512], metadata=SIDES)
    """sides of the stored squares, pixels; each becomes one binary column"""
    square: Literal["pad", "stretch"] = "pad"
    """how an image becomes a square: `pad` adds black and keeps the proportions, `stretch` fills the square"""
    masks: str = ""
    """folder with a mask of the lungs of each film, named after the film; a relative path is below the source; empty:
    the table has no masks"""
    crop: Literal["none", "lungs"] = "none"
    """part of a film that is kept: `none` (all of it), or `lungs`, the box around both lungs; a film on which no lungs
    are found is kept whole, and counted"""
    crop_margin: float = between(0, 1, 0.1)
    """share of the lungs' width and height that etl.crop lungs keeps beyond them on each side, as far as the film
    reaches"""
    lungs: str = bounded("finder", str.strip, "`finder`, or a folder")
    """what finds the lungs for etl.crop: `finder` (classifiers that need no training), or the folder of a network that
    inference/lungs.py exported"""
    intensity: Literal["none", "percentile", "clahe"] = "none"
    """change of the grey values: `none`, `percentile` (stretches the 0.5th to 99.5th percentile to the full
    range) or `clahe` (contrast by region)"""
    grey_bits: int = bounded(0, lambda bits: bits == 0 or 8 <= bits <= 16, "0, or 8 to 16")
    """bits of the greys in 16-bit PNG and TIFF files that do not say it and fit into so many, such as 12 of a detector;
    0: all 16, and films that use far fewer go to quarantine; 16: those films are taken as they are"""
    split: Literal["source", "lists", "hashed"] = "source"
    """what decides the split: `source` (official lists, valid.csv, the column etl.columns.split, split folders of
    `classes`; hashed if it has none), `lists` (train_list.txt, val_list.txt and test_list.txt in etl.split_lists), or
    `hashed`, by a hash of the patient"""
    split_lists: str = ""
    """folder with the lists for etl.split lists; labels in them, as in CheXNet's lists, replace those of the label
    file"""
    val_fraction: float = share(0.125)
    """share of the training patients that become validation patients (0.125 of NIH's 28,008 gives the 70:10 of
    CheXNet, 0.3 the 70:30 of Godonou et al.)"""
    test_fraction: float = share(0.2)
    """share of all patients in the test split, if the split is hashed"""
    test_fold: int = at_least(0, 0)
    """fold that becomes the test split, with etl.split hashed: with etl.test_fraction 0.2, the folds 0 to 4 have each
    patient in the test split once"""
    seed: int = between(0, 2**32 - 1, 0)
    """seed that chooses the validation patients and the order of the rows"""
    rows_per_row_group: int = at_least(1, 128)
    """rows of a Parquet row group, the unit that a training rank reads"""
    rows_per_file: int = at_least(1, 1024)
    """approximate number of rows in a Parquet file, the unit of work of a Spark task"""
    max_quarantined_fraction: float = between(0, 1, 0.1)
    """share of bad images above which the job fails and the table keeps its old version"""
    table: str = ""
    """folder or address (s3://bucket/name, abfss://, ...) of the Delta tables; empty: in the workspace"""

    def __post_init__(self):
        check(self, "etl")
        labeller = self.labels.labeller
        known = LABELLERS.get(self.format, ())
        expected = f"with --etl.format {self.format} " + (f"{' or '.join(known)}, or empty" if known else "empty")
        require(labeller in ("", *known), "etl.labels.labeller", labeller, expected)
        shared, expected = self.shared_patients, "names of two or more of etl.sources"
        require(not shared or (self.sources and len(set(shared)) > 1), "etl.shared_patients", shared, expected)
        margin, first = self.crop_margin, Etl.crop_margin
        require(self.crop == "lungs" or margin == first, "etl.crop_margin", margin, f"{first} without --etl.crop lungs")
        expected = f"{Etl.lungs} without --etl.crop lungs"
        require(self.crop == "lungs" or self.lungs == Etl.lungs, "etl.lungs", self.lungs, expected)
        expected = "a folder with --etl.split lists, and nothing without"
        require((self.split == "lists") == bool(self.split_lists), "etl.split_lists", self.split_lists, expected)
        fold, last = self.test_fold, math.floor(1 / self.test_fraction + 1e-9) - 1
        expected = f"0 to {last}, because etl.test_fraction is {self.test_fraction}"
        require(fold <= last, "etl.test_fold", fold, expected)
        require(not fold or self.split == "hashed", "etl.test_fold", fold, "0 without --etl.split hashed")
        expected = f"at least etl.rows_per_row_group ({self.rows_per_row_group})"
        require(self.rows_per_file >= self.rows_per_row_group, "etl.rows_per_file", self.rows_per_file, expected)


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
    """how calibrated probabilities are combined: by their `mean`, or by `weights` per finding, fitted on the validation
    split"""

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


@dataclass(frozen=True)
class Inference:
    """Registration: turns a checkpoint into a registered INT8 model, by inference/register.py."""

    registered_model: str = bounded(
        "chexscale", lambda name: name.strip() and not set("/:") & set(name), "a name without / or :"
    )
    """name of the model in the MLflow registry"""
    num_calibration_images: int = at_least(1, 128)
    """images of the training split that calibrate INT8"""
    num_attempts: int = between(1, 3, 3)
    """ways of quantising that are tried until the gate passes: plain, with corrected biases, with the most sensitive
    layers in FP32"""
    max_minutes: float = at_least(0, 60)
    """minutes that all ways of quantising may take together; the first way always runs to its end, later ways stop and
    the best so far is judged; 0: no limit"""
    batch_size: int = at_least(1, 16)
    """images that the model computes at a time, in register.py, infer.py and predict.py"""
    ten_crop: bool = False
    """whether the AUROC of ten-crop averages is measured too, which takes eleven times as long"""
    max_mean_drop: float = between(-1, 1, 0.005)
    """largest fall of the mean AUROC, from FP32 to INT8 and from the champion, that the gate accepts (negative: a gain
    is required); for quantisation, the upper end of the 95% interval by patient counts"""
    max_finding_drop: float = between(-1, 1, 0.02)
    """largest fall of a single finding's AUROC from FP32 to INT8 that the gate accepts; the upper end of its
    interval counts too"""
    error_rate: float = bounded(0, lambda rate: 0 <= rate < 0.5, "0, or a share below 0.5")
    """share of films that a model which can also answer `unsure` may get wrong: it answers `absent` for at most this
    share of the films with a finding, and `present` for at most this share of those without it; 0: it is never unsure,
    and gives no such answers"""

    def __post_init__(self):
        check(self, "inference")


@dataclass(frozen=True)
class Scoring:
    """Batch: the champion over many images, by inference/predict.py."""

    source: str = ""
    """folder or address (s3://bucket/folder, ...) of image files, or a workspace with a table; empty: the table of this
    workspace"""
    output: str = ""
    """folder or address of the Delta table of scores; empty: scores/ in the workspace"""
    mode: Mode = "int8"
    """precision of the graph: int8, fp16, fp32, onnx or torch"""

    def __post_init__(self):
        check(self, "scoring")


@dataclass(frozen=True)
class Validation:
    """External testing: a registered model on the labelled films of scoring.source, by inference/validate.py."""

    site: str = bounded("", lambda name: re.fullmatch(r"[\w][\w.-]*|", name), "letters, digits, `_`, `.` and `-`")
    """name of the films' origin in reports and folders; empty: the last name of scoring.source"""
    splits: list[Split] = field(default_factory=list)
    """splits of the films' table that are tested: train, val, test; empty list: all, because the model has seen none"""
    seen: Literal["refuse", "leave_out", "unchecked"] = "refuse"
    """what to do with films and patients that the model's training has seen: `refuse` to test, `leave_out` these, or
    leave it `unchecked` if the training's table is gone"""
    same_patients: Literal["ask", "yes", "no"] = "ask"
    """whether patients of one name in both tables are the same people: `yes`, `no`, or `ask`, which stops if there are
    any, unless both tables have one source"""
    second: str = ""
    """workspace whose table has other labels of the same films, such as radiologists' beside labels mined from reports;
    the model is measured by both, and the labels are compared; empty: none"""
    recalibrate: bool = False
    """whether calibration and thresholds are fitted to a part of the films' patients, measured on the other part, and
    registered as a version of its own"""
    fit_fraction: float = share(0.5)
    """share of the patients to whom a recalibration is fitted"""

    def __post_init__(self):
        check(self, "validation")
        splits = self.splits
        require(len(set(splits)) == len(splits), "validation.splits", splits, "different splits")


@dataclass(frozen=True)
class Serving:
    """Service: the champion over REST with a page, by inference/serve.py. CHEXSCALE_API_KEY holds the API key."""

    host: str = "127.0.0.1"
    """address to listen on; any but a loopback address lets other machines call the service, and needs an API key"""
    port: int = between(0, 65535, 8000)
    """TCP port; 0: any free one, which is printed"""
    mode: Mode = "int8"
    """precision of the graph: int8, fp16, fp32, onnx or torch"""
    allowed_hosts: list[str] = field(default_factory=list)
    """host names under which clients may call the service, beside localhost"""
    max_batch: int = at_least(1, 16)
    """largest number of images per inference; images that wait together are computed together"""
    num_decoders: int = at_least(0, 0)
    """number of processes that decode files; 0: one more than there are cores, so that none waits for its next file"""
    max_file_mb: float = above(0, 50)
    """largest size of a file, 10**6 bytes"""
    max_files: int = at_least(1, 64)
    """largest number of files in a request"""
    max_request_mb: float = above(0, 200)
    """largest size of a request with all its files, 10**6 bytes"""
    max_waiting: int = at_least(1, 512)
    """largest number of files in work at a time; requests beyond it get status 503"""
    max_waiting_mb: float = above(0, 1000)
    """memory that the files in work may hold together, 10**6 bytes"""
    decode_s: float = above(0, 20)
    """time limit for decoding one file, seconds"""
    decode_mb: int = at_least(1, 2000)
    """memory that decoding one file may take, 10**6 bytes"""
    upload_s: float = above(0, 30)
    """time limit for a request to arrive whole, seconds"""
    requests_per_minute: int = at_least(0, 600)
    """requests per minute of one client address; 0: no limit"""
    reload_s: float = above(0, 5)
    """seconds between two looks at the registry for a new champion"""

    def __post_init__(self):
        check(self, "serving")


@dataclass(frozen=True)
class Jobs:
    """Pipeline: all stages on this machine, by jobs/pipeline.py; training on Spark, by jobs/spark_train.py."""

    num_ranks: int = at_least(0, 0)
    """number of training processes; 0: the pipeline starts one per GPU of this machine, or 2 without GPUs, and
    jobs/spark_train.py asks for a number"""

    def __post_init__(self):
        check(self, "jobs")


@dataclass(frozen=True)
class Settings:
    """Settings of all stages, which share one tree so that each finds what the stage before it left."""

    workspace: str = "runs/demo"
    """folder that holds all that the stages write"""
    tracking_server: str = ""
    """address of an MLflow server, such as http://host:5000, databricks or databricks://PROFILE, that keeps runs and
    registry; a password goes into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; empty: mlflow.db in the
    workspace"""
    phantoms: Phantoms = field(default_factory=Phantoms)
    etl: Etl = field(default_factory=Etl)
    training: Training = field(default_factory=Training)
    lungs: Lungs = field(default_factory=Lungs)
    ensemble: Ensemble = field(default_factory=Ensemble)
    label_quality: LabelQuality = field(default_factory=LabelQuality)
    inference: Inference = field(default_factory=Inference)
    scoring: Scoring = field(default_factory=Scoring)
    validation: Validation = field(default_factory=Validation)
    serving: Serving = field(default_factory=Serving)
    jobs: Jobs = field(default_factory=Jobs)

    def __post_init__(self):
        server = self.tracking_server
        check_server(server)
        if server.startswith("databricks"):
            name, experiment = self.inference.registered_model, self.training.experiment
            catalog = "CATALOG.SCHEMA.NAME, as Unity Catalog names models"
            require(name.count(".") == 2, "inference.registered_model", name, catalog)
            path = "a path such as /Users/you@hospital.org/chexscale, as Databricks names experiments"
            require(experiment.startswith("/"), "training.experiment", experiment, path)

    def to_dict(self) -> dict:
        """Plain nested dict of the resolved settings, as logged with every run."""
        return asdict(self)


def restore(section: type, saved: dict) -> Any:
    """A section of the settings from what a checkpoint saved, without knobs that this release no longer has."""
    return section(**{knob.name: saved[knob.name] for knob in fields(section) if knob.name in saved})
