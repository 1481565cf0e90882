"""Every knob of CheXScale, with its bounds, its default, and one sentence that stands alone; a module for each stage.

`conf/*.yaml` hold one scenario each and only what differs from here. conf/arguments.py reads them and the command line;
docs/settings.md lists the same for reading.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from conf.bounds import at_least, check, require
from conf.servers import check_server
from conf.settings.etl import Columns, Dicom, Etl, Labels, Phantoms, Quality
from conf.settings.inference import MODES, Inference, Mode, Scoring, Serving, Validation
from conf.settings.training import Ensemble, LabelQuality, Lungs, Training

__all__ = [
    "MODES",
    "Columns",
    "Dicom",
    "Ensemble",
    "Etl",
    "Inference",
    "Jobs",
    "LabelQuality",
    "Labels",
    "Lungs",
    "Mode",
    "Phantoms",
    "Quality",
    "Scoring",
    "Serving",
    "Settings",
    "Training",
    "Validation",
    "restore",
]


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
