"""Measures how well a registered model's distance from the training data tells strange images from the test split.

    python -m jobs.benchmarks.inference.familiarity --figure roc.png                  the champion of runs/demo, INT8
    python -m jobs.benchmarks.inference.familiarity --workspace DIR --mode fp32 --figure roc.png

The strange images are drawn lateral views, photographs, pages of text and noise (100 of each, see strange.py), and the
test split's own films inverted, upside down and on their side. For each kind, prints the AUROC of the distance, and the
share of images beyond the model's threshold, which comes from the validation split. Draws the ROC curves.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score, roc_curve

from conf.errors import run_command
from conf.settings import MODES
from conf.workspace import Workspace
from conf.writing import atomic_path
from etl.contract.version import TableVersion
from inference.model.graphs import Predict
from inference.model.model_files import find_model
from inference.model.served_model import ServedModel, open_served
from jobs.benchmarks.inference.strange import DRAWN, TURNED
from training.reading.batches import read_batches
from training.reading.readers import open_split

NUM_DRAWN = 100
BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workspace", default="runs/demo", help="workspace of a finished register.py (default runs/demo)"
    )
    parser.add_argument("--mode", default="int8", choices=MODES, help="precision of the model (default int8)")
    parser.add_argument("--figure", type=Path, required=True, help="PNG file to draw")
    arguments = parser.parse_args()
    workspace = Workspace.at(arguments.workspace)
    model = open_served(find_model(workspace, "chexscale"), arguments.mode)
    films = read_films(workspace, model)
    size_px = model.properties.size_px
    kinds = {name: np.stack([draw(seed, size_px) for seed in range(NUM_DRAWN)]) for name, draw in DRAWN.items()}
    kinds |= {name: np.stack([turn(film) for film in films]) for name, turn in TURNED.items()}
    own = distances_of(model.predict, films)
    strange = {name: distances_of(model.predict, images) for name, images in kinds.items()}
    threshold = model.properties.distance_threshold
    title = f"{model.name} version {model.version}, {model.mode}; {len(films)} images of its test split"
    table = Table("images", "AUROC", "beyond the threshold", title=title, title_justify="left")
    table.add_row("test split", "", f"{np.mean(own > threshold):.1%}")
    for name, distances in strange.items():
        table.add_row(name, f"{auroc(own, distances):.3f}", f"{np.mean(distances > threshold):.1%}")
    Console().print(table)
    draw_curves(own, strange, threshold, title, arguments.figure)
    print(f"The figure is in {arguments.figure}")


def read_films(workspace: Workspace, model: ServedModel) -> np.ndarray:
    """Reads the test split of the table version that the model was trained on, (images, S, S) uint8."""
    properties = model.properties
    newest, name = TableVersion.of(workspace), f"{model.name} version {model.version}"
    table = newest.trained_on(properties.delta_table_id, properties.delta_version, name)
    split = open_split(table, "test", properties.size_px)
    return np.concatenate([batch.pixels.numpy() for batch in read_batches(split, BATCH)])


def distances_of(predict: Predict, images: np.ndarray) -> np.ndarray:
    """Returns the distance of each image, (images,) float32."""
    return np.concatenate([predict(images[start : start + BATCH]).distances for start in range(0, len(images), BATCH)])


def auroc(own: np.ndarray, strange: np.ndarray) -> float:
    """Returns the chance that a strange image is farther away than one of the test split."""
    return roc_auc_score(np.arange(len(own) + len(strange)) >= len(own), np.concatenate([own, strange]))


def draw_curves(own: np.ndarray, strange: dict[str, np.ndarray], threshold: float, title: str, path: Path) -> None:
    """Draws one ROC curve per kind, and marks the threshold on it."""
    figure, axes = plt.subplots(figsize=(6.5, 6), layout="constrained")
    for name, distances in strange.items():
        is_strange = np.arange(len(own) + len(distances)) >= len(own)
        false_alarms, found, _ = roc_curve(is_strange, np.concatenate([own, distances]))
        (line,) = axes.plot(false_alarms, found, label=f"{name}: {auroc(own, distances):.3f}")
        axes.plot(np.mean(own > threshold), np.mean(distances > threshold), "o", color=line.get_color())
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=1, zorder=0)
    axes.set(
        xlabel="share of the test split called unlike the training data",
        ylabel="share of the strange images called so",
        title=title,
    )
    axes.title.set_fontsize(10)
    axes.legend(title="AUROC; dots: at the threshold", loc="lower right")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    run_command(main)
