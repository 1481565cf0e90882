"""Exports a lung network to OpenVINO, in INT8 if that finds lungs as well, measures it, and registers it."""

from itertools import islice

import numpy as np

from conf.settings import Settings
from conf.workspace import Workspace
from conf.writing import atomic_folder
from etl.contract.version import TableVersion
from inference.candidate.making.quantize import quantize_lungs
from inference.candidate.registration import register_lungs
from inference.model.lungs import convert_lungs, predict_lungs, save_lungs
from training.network.lung_network import load_network
from training.segmentation.reading import read_films
from training.segmentation.run import NETWORK, describe_overlap

MAX_DROP = 0.01
"""largest loss of mean IoU on the validation split with which INT8 is still preferred"""
NUM_CALIBRATED = 300
"""films of the training split that give the ranges of activations"""
MODEL = "model"


def run(settings: Settings, workspace: Workspace) -> None:
    """Writes lungs/model/ and registers it. Raises InputError without a network, or if its table is gone."""
    network, about = load_network(workspace.lungs / NETWORK)
    trained = (about["delta_table_id"], about["delta_version"], "the lung network")
    table = TableVersion.of(workspace, elsewhere=settings.etl.table).trained_on(*trained)
    size_px, batch_size = about["size_px"], settings.lungs.batch_size

    def films(split: str):
        return read_films(table, split, size_px, batch_size)

    graphs = {"fp32": convert_lungs(network, size_px)}
    pixels = np.concatenate([batch.pixels for batch in islice(films("train"), -(-NUM_CALIBRATED // batch_size))])
    graphs["int8"] = quantize_lungs(graphs["fp32"], pixels[:NUM_CALIBRATED])
    measured = {}
    for mode, graph in graphs.items():
        predict = predict_lungs(graph)
        measured[mode] = {
            split: describe_overlap(predict, films(split), settings.lungs.seed) for split in ("val", "test")
        }
    drop = measured["fp32"]["val"]["iou"] - measured["int8"]["val"]["iou"]
    # Written so that NaN fails.
    mode = "int8" if drop <= MAX_DROP else "fp32"
    with workspace.exclusive():
        with atomic_folder(workspace.lungs / MODEL) as building:
            described = save_lungs(graphs[mode], building, {**about, "precision": mode, "overlap": measured})
        version = register_lungs(workspace, settings.lungs.registered_model, workspace.lungs / MODEL, described)
    for name, splits in measured.items():
        print(f"{name.upper()}: IoU {splits['val']['iou']:.4f} on the validation split, {_said(splits['test'])}")
    why = f"INT8's IoU is {drop:.4f} below FP32's on the validation split, at most {MAX_DROP} is allowed"
    print(f"{mode.upper()} is kept: {why}")
    print(f"Registered as {settings.lungs.registered_model} version {version}")
    print(f"Next: --etl.crop lungs --etl.lungs {workspace.lungs / MODEL}")


def _said(measured: dict) -> str:
    low, high = measured["interval"]
    return f"{measured['iou']:.4f} ({low:.4f} to {high:.4f}) on {measured['films']:,} films of the test split"
