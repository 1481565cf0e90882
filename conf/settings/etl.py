"""Settings of the ETL: the phantoms that it can draw, and the table that it makes."""

import math
from dataclasses import dataclass, field
from typing import Literal

from conf.bounds import MODALITIES, SIDES, at_least, between, bounded, check, require, share
from conf.words import View

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
