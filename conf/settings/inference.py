"""Settings of what a trained model goes through: registration, scores in batch, another hospital's films, service."""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from conf.bounds import above, at_least, between, bounded, check, require, share
from conf.words import Split

Mode = Literal["int8", "fp16", "fp32", "onnx", "torch"]
MODES = get_args(Mode)


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
