"""A small finished training: a Delta table with planted findings, a trained network, its MLflow run."""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake import CommitProperties, write_deltalake

from conf.settings import Quality, Training
from conf.workspace import Workspace
from etl.contract.schema import CONTRACT, SPLITS, Card
from etl.contract.version import TableVersion
from inference.candidate import build
from inference.candidate.gate import Decision
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.export import export_graphs
from inference.candidate.making.fitting import fit_served
from inference.candidate.making.quantize import quantize
from inference.candidate.measuring import speed
from inference.candidate.measuring.speed import Footprint
from inference.candidate.registration import register
from inference.files.decoders import FileDecoders
from inference.model.graphs import properties_of, save_graph, with_distance_threshold
from inference.model.networks.fitted import FittedModel
from inference.model.served_model import ServedModel
from tests.in_process import Ended, run_here
from training.loop.loss import cross_entropy, masked_bce
from training.network.attributes import encode_attributes
from training.network.build import build_model
from training.network.checkpoint import BEST, Checkpoint
from training.reading.readers import open_split
from training.record.store import use_store

SIZE_PX = 64
# Planted: a bright corner, a chequered patch at any place; the third never occurs, so its AUROC is undefined.
FINDINGS = ["Bright_Corner", "Chequers", "Never"]
CHEQUERS = np.indices((24, 24)).sum(axis=0) % 2 * 2 - 1
ROWS = {"train": 256, "val": 64, "test": 128}
REPOSITORY = Path(__file__).parents[2]


def planted_images(num_images: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[list[float]]]:
    """(images, S, S) uint8, (images, findings) float32, and the boxes of the chequers as in the contract."""
    labels = np.zeros((num_images, len(FINDINGS)), np.float32)
    labels[:, :2] = rng.random((num_images, 2)) < 0.3
    pixels = rng.normal(100, 20, (num_images, SIZE_PX, SIZE_PX))
    # Corners differ without the finding as well, so that the AUROC stays below 1.
    pixels[:, :16, :16] += rng.normal(40 * labels[:, 0], 20)[:, None, None]
    boxes = [[] for _ in range(num_images)]
    for image in np.flatnonzero(labels[:, 1]):
        top, left = rng.integers(20, 40, 2)
        pixels[image, top : top + 24, left : left + 24] += 25 * CHEQUERS
        boxes[image] = [1, *(np.array([left, top, 24, 24]) / SIZE_PX)]
    labels[rng.random(labels.shape) < 0.05] = np.nan
    return pixels.clip(0, 255).astype(np.uint8), labels, boxes


def coloured(pixels: np.ndarray) -> np.ndarray:
    """(..., S, S) grey to (..., S, S, 3) RGB of a reddish tint."""
    return np.stack([pixels, pixels // 2, pixels // 3], axis=-1)


def write_table(
    workspace: Workspace,
    seed: int = 0,
    vocabulary: Sequence[str] = FINDINGS,
    patients: str = "",
    label: float | None = None,
    classes: bool = False,
    **changes,
) -> tuple[Card, torch.Tensor, torch.Tensor]:
    """Writes shards and card; returns the card and the training images and labels. With channels=3 they are in colour.

    vocabulary: the table's findings; none of the images has those that are not planted. patients: what their names
    begin with. label: what every label is; None: what is planted. classes: each image has exactly one finding, the
    first that is planted in it, otherwise the last. changes: fields of the card that differ.
    """
    rng = np.random.default_rng(seed)
    tables, train = [], None
    for split in SPLITS:
        pixels, labels, boxes = planted_images(ROWS[split], rng)
        pixels = coloured(pixels) if changes.get("channels") == 3 else pixels
        if classes:
            labels = np.eye(3, dtype=np.float32)[np.where(labels[:, 0] == 1, 0, np.where(labels[:, 1] == 1, 1, 2))]
        train = (pixels, labels) if split == "train" else train
        labels = np.column_stack([*labels.T, np.zeros(len(labels), np.float32)])
        labels = labels if label is None else np.full_like(labels, label)
        labels = labels[:, [FINDINGS.index(name) if name in FINDINGS else -1 for name in vocabulary]]
        boxes = [
            [vocabulary.index(FINDINGS[1]), *box[1:]] if box and FINDINGS[1] in vocabulary else [] for box in boxes
        ]
        ids = [f"{split}_{index:04}.png" for index in range(len(pixels))]
        columns = {
            "image_id": ids,
            "patient_id": [patients + name for name in ids],
            "age_years": pa.array(rng.integers(20, 80, len(ids)), pa.float32()),
            "sex": rng.choice(["F", "M"], len(ids)),
            "view": rng.choice(["PA", "AP"], len(ids)),
            "findings": pa.array(list(labels), pa.list_(pa.float32())),
            "boxes": pa.array(boxes, pa.list_(pa.float32())),
            "split": [split] * len(ids),
            f"image_{SIZE_PX}": pa.array([image.tobytes() for image in pixels], pa.binary()),
            "pixel_hash": [hashlib.sha256(image).hexdigest()[:32] for image in pixels],
        }
        tables.append(pa.table(columns))
    column = f"image_{SIZE_PX}"
    card = Card(
        contract=CONTRACT,
        table="",
        channels=1,
        delta_table_id="table",
        delta_version=0,
        quarantine_version=0,
        findings=list(vocabulary),
        sizes_px=[SIZE_PX],
        images=ROWS,
        patients=ROWS,
        percentages={},
        positives={split: dict.fromkeys(vocabulary, 1) for split in SPLITS},
        known={split: dict.fromkeys(vocabulary, 2) for split in SPLITS},
        pixel_mean={column: float(train[0].mean())},
        pixel_std={column: float(train[0].std())},
        images_listed=sum(ROWS.values()),
        images_absent=0,
        images_unlisted=0,
        images_quarantined=0,
        identities="",
        source="planted",
        source_sha256={},
        settings={"square": "pad", "intensity": "none", "quality": asdict(Quality()), "split": "source"},
    )
    card = replace(card, **changes)
    with_card = CommitProperties({"userMetadata": card.committed.to_json()})
    write_deltalake(workspace.shards, pa.concat_tables(tables), partition_by=["split"], commit_properties=with_card)
    card.write(workspace.card)
    return card, torch.from_numpy(train[0]), torch.from_numpy(train[1])


def train_network(
    card: Card,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    attributes: torch.Tensor | None = None,
    network: str = "simple_cnn",
    **kind,
) -> torch.nn.Module:
    torch.manual_seed(0)
    column, arguments = f"image_{SIZE_PX}", (pixels,) if attributes is None else (pixels, attributes)
    model = build_model(network, len(FINDINGS), card.pixel_mean[column], card.pixel_std[column], **kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(6):
        for rows in torch.randperm(len(pixels)).split(32):
            optimizer.zero_grad()
            logits = model(*(part[rows] for part in arguments))
            if model.exclusive:
                cross_entropy(logits, labels[rows]).backward()
            else:
                masked_bce(logits, labels[rows], torch.ones(len(FINDINGS))).backward()
            optimizer.step()
    return model.eval()


def start_and_end_run(workspace: Workspace) -> str:
    use_store(workspace)
    experiment = mlflow.create_experiment("test", artifact_location=workspace.artifacts.as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        return run.info.run_id


@pytest.fixture(scope="session")
def workspace(new_store, tmp_path_factory) -> Workspace:
    """What ETL and training leave behind."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("workspace")))
    new_store(workspace)
    trained(workspace)
    return workspace


def trained(workspace: Workspace, channels: int = 1, tabular: bool = False) -> None:
    """Writes what ETL and training leave behind, of a network for colour images, or of age, sex and view too."""
    torch.set_num_threads(2)
    card, pixels, labels = write_table(workspace, channels=channels)
    attributes = None
    if tabular:
        rows = TableVersion(str(workspace.shards), card).rows("train")
        attributes = torch.from_numpy(encode_attributes(rows.age_years, rows["sex"], rows["view"]))
    model = train_network(card, pixels, labels, attributes, channels=channels, tabular=tabular)
    Checkpoint(
        weights=model.state_dict(),
        model="simple_cnn",
        findings=FINDINGS,
        size_px=SIZE_PX,
        pixel_mean=card.pixel_mean[f"image_{SIZE_PX}"],
        pixel_std=card.pixel_std[f"image_{SIZE_PX}"],
        channels=channels,
        tabular=tabular,
        exclusive=False,
        epoch=6,
        val_auroc=0.9,
        delta_table_id="table",
        delta_version=0,
        run_id=start_and_end_run(workspace),
        commit="0123abc",
        settings={"training": vars(Training())},
        ancestors=[
            {"source": "models:/chexscale@champion", "run_id": "old", "delta_table_id": "table", "delta_version": 0},
            {"source": "imagenet"},
        ],
    ).save(workspace.checkpoints / BEST)


@pytest.fixture(scope="session")
def checkpoint(workspace) -> Checkpoint:
    return Checkpoint.load(workspace.checkpoints / BEST)


@pytest.fixture(scope="session")
def splits(workspace):
    card = Card.read(workspace.card)
    return {name: open_split(TableVersion(str(workspace.shards), card), name, SIZE_PX) for name in SPLITS}


@pytest.fixture(scope="session")
def test_images(splits, served) -> np.ndarray:
    """(5, S, S) uint8 of the test split."""
    return calibration_inputs(splits["test"], 5, 0, served.properties)[0]


@pytest.fixture(scope="session")
def served(workspace, checkpoint, splits) -> FittedModel:
    return fit_served(checkpoint, Card.read(workspace.card), splits["train"], splits["val"], seed=0)


@pytest.fixture(scope="session")
def fp32(served, test_images, tmp_path_factory) -> Path:
    """The FP32 graph; fp16 and onnx lie beside it."""
    folder = tmp_path_factory.mktemp("graphs")
    export_graphs(served, folder, (test_images,))
    return folder / "fp32"


@pytest.fixture(scope="session")
def int8(fp32, splits, served) -> Path:
    """The INT8 graph, with room for what quantising adds to distances, so that the test's films are familiar to it."""
    folder = fp32.with_name("int8")
    graph = quantize(fp32, calibration_inputs(splits["train"], 48, 0, served.properties))
    save_graph(with_distance_threshold(graph, 2 * properties_of(graph).distance_threshold), folder)
    return folder


@pytest.fixture(scope="session")
def damaged_int8(served, splits, test_images, tmp_path_factory) -> Path:
    """The same network with an erased classifier, quantised like the good one."""
    damaged = replace(served, network=copy.deepcopy(served.network))
    damaged.network.classifier.classifier.weight.data.zero_()
    folder = tmp_path_factory.mktemp("damaged")
    export_graphs(damaged, folder, (test_images,))
    inputs = calibration_inputs(splits["train"], 48, 0, served.properties)
    save_graph(quantize(folder / "fp32", inputs), folder / "int8")
    return folder / "int8"


@pytest.fixture(scope="session")
def tabular_champion(new_store, run_register, tmp_path_factory) -> Workspace:
    """A workspace whose champion takes age, sex and view; all training films have ages of 20 to 79 years, PA or AP."""
    return _registered(new_store, run_register, tmp_path_factory.mktemp("tabular"), tabular=True)


@pytest.fixture(scope="session")
def colour_champion(new_store, run_register, tmp_path_factory) -> Workspace:
    """A workspace whose champion takes colour images."""
    return _registered(new_store, run_register, tmp_path_factory.mktemp("colour"), channels=3)


def _registered(new_store, run_register, folder: Path, **kind) -> Workspace:
    workspace = Workspace.at(str(folder))
    new_store(workspace)
    trained(workspace, **kind)
    ended = run_register(workspace, "--inference.max_mean_drop=1", "--inference.max_finding_drop=1")
    assert (ended.code, "@champion" in ended.stdout) == (0, True), ended.stdout + ended.stderr
    return workspace


@pytest.fixture(scope="session")
def film_decoders() -> Iterator[FileDecoders]:
    """Processes that decode files; a command would start its own, which takes seconds."""
    with FileDecoders(2) as decoders:
        yield decoders


@pytest.fixture(scope="module")
def ready_decoders(film_decoders) -> Iterator[None]:
    """Commands that run in this process decode their files with `film_decoders`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inference.files.run.FileDecoders", lambda _: nullcontext(film_decoders))
        yield


@pytest.fixture(scope="session")
def run_register():
    """Runs the command: in this process, which has its imports already, or as a user does, from another folder.

    Only the latter measures the memory of each form in a process of its own and repeats every timing, which takes half
    a minute.
    """

    def run(workspace: Workspace, *options: str, own_process: bool = False) -> Ended:
        script = str(REPOSITORY / "inference" / "register.py")
        arguments = [script, f"--workspace={workspace.root}", "--inference.num_calibration_images=48", *options]
        if own_process:
            environment = {**os.environ, "COLUMNS": "200"}
            folder = workspace.root.parent
            ended = subprocess.run(
                [sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=folder
            )
            return Ended(ended.returncode, ended.stdout, ended.stderr)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "measure_footprint", lambda *_: Footprint(first_answer_s=0.1, peak_memory_mb=100.0))
            patch.setattr(speed, "TIME_LIMIT_S", 0.0)
            return run_here(*arguments)

    return run


def register_champion(model: ServedModel, workspace: Workspace, parent: Path, name: str = "chexscale") -> Workspace:
    """A copy of the workspace, below `parent`, with the model in its registry: the other tests' stays without.

    name: the name under which the model is registered; other tests may have registered versions of `chexscale`.
    """
    # Without a model that other tests may have left there.
    without = shutil.ignore_patterns(workspace.model.name)
    copied = Workspace.at(str(shutil.copytree(workspace.root, parent / "workspace", ignore=without)))
    shutil.copytree(model.folder, copied.model)
    report = {"test_auroc": {}, "speed": {}, "localisation": {}}
    (copied.model / "report.json").write_text(json.dumps(report))
    copied.figures.mkdir(exist_ok=True)
    (copied.figures / "test_auroc.png").touch()
    decision = Decision(True, ["a test"], None, {}, [], [])
    assert register(copied, name, model.properties, copied.model, report, decision).aliases[-1] == "champion"
    return copied
