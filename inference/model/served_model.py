"""A model, ready to answer, as the command line and the batch open it."""

from dataclasses import dataclass
from pathlib import Path

from inference.model.graphs import Predict
from inference.model.model_files import ModelFiles
from inference.model.properties import Properties
from inference.model.variants import open_variant


@dataclass(frozen=True)
class ServedModel:
    """A model, ready to answer."""

    files: ModelFiles
    mode: str
    properties: Properties
    predict: Predict

    name = property(lambda self: self.files.name)
    version = property(lambda self: self.files.version)

    @property
    def folder(self) -> Path:
        """Holds the other modes too, report.json and model_card.json."""
        return self.files.folder


def open_served(files: ModelFiles, mode: str = "int8", num_threads: int = 0) -> ServedModel:
    """Opens a model in one of its modes. num_threads: 0 means all cores. Raises InputError if it has no such mode."""
    predict, properties = open_variant(mode, files.variant(mode), num_threads)
    return ServedModel(files, mode, properties, predict)
