"""Are planted wrong labels found, and are the estimated shares of wrong labels true? A run on phantoms.

    python -m jobs.benchmarks.training.planted                                 one training: its val and test split
    python -m jobs.benchmarks.training.planted --missed 0 --false 0            no label is wrong
    python -m jobs.benchmarks.training.planted --folds 5                       five trainings: every patient

It runs the project's own commands as conf/demo.yaml says: the ETL on phantoms, whose labels are right; the ETL again
with wrong labels, given as corrections; a training on them; training/label_quality.py. Then it says for each finding
how many of the first suspects are planted, and sets the estimated shares beside the true ones. Last, a perfect reader
judges to_judge.csv, and the ETL takes that. Takes some three minutes for each training on two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.programs import own_environment
from conf.workspace import Workspace
from etl.contract.schema import SPLITS
from etl.contract.version import TableVersion

PROJECT = Path(__file__).parents[3]
console = Console(width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/planted"), help="folder of the workspaces")
    parser.add_argument("--images", type=int, default=2000, help="phantoms (default 2,000)")
    parser.add_argument("--missed", type=float, default=0.1, help="share of present labels that become absent")
    parser.add_argument("--false", type=float, default=0.02, help="share of absent labels that become present")
    parser.add_argument(
        "--folds", type=int, default=1, help="trainings on other fifths of the patients; 1: the source's split"
    )
    parser.add_argument("--epochs", type=int, default=10, help="epochs of a training (default 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms and of the wrong labels (default 0)")
    given = parser.parse_args()
    clean = given.folder / "clean"
    etl(clean, "--phantoms.num_images", str(given.images), "--phantoms.seed", str(given.seed))
    truth = labels_of(clean)
    wrong = given.folder / "wrong.csv"
    plant(truth, given.missed, given.false, given.seed, wrong)
    source = ["--etl.source", str(clean / "phantoms")]
    files = [wrong] * bool(planted(wrong))
    trainings = []
    for fold in range(given.folds):
        trainings.append(given.folder / f"fold{fold}")
        split = ["--etl.split", "hashed", "--etl.test_fold", str(fold)] if given.folds > 1 else []
        etl(trainings[-1], *source, *corrections(files), *split)
        python("training/train.py", "--workspace", str(trainings[-1]), "--training.epochs", str(given.epochs))
    judged = trainings[0]
    named = json.dumps([str(training) for training in trainings])
    python("training/label_quality.py", "--workspace", str(judged), "--label_quality.trainings", named)
    compare(judged, truth)
    answers = given.folder / "judged.csv"
    judge(judged, truth, answers)
    etl(judged, *source, *corrections([*files, answers]), *(["--etl.split", "hashed"] if given.folds > 1 else []))
    left = (labels_of(judged) != truth).to_numpy().sum()
    console.print(f"Wrong labels in the table: {planted(wrong):,} planted, {left:,} left after the judgements")


def etl(workspace: Path, *arguments: str) -> None:
    run(["spark-submit", str(PROJECT / "etl/preprocess.py"), "--workspace", str(workspace), *arguments])


def corrections(files: list[Path]) -> list[str]:
    return ["--etl.corrections", json.dumps([str(file) for file in files])]


def python(file: str, *arguments: str) -> None:
    run([sys.executable, str(PROJECT / file), *arguments])


def run(command: list[str]) -> None:
    console.print(" ".join(command), markup=False, soft_wrap=True)
    subprocess.run(command, env=own_environment(), check=True)


def labels_of(workspace: Path) -> pd.DataFrame:
    """The labels of a table: a row per image, a column per finding."""
    table = TableVersion.of(Workspace.at(str(workspace)))
    rows = table.rows(*SPLITS).sort_values("image_id")
    return pd.DataFrame(np.stack(rows.findings), pd.Index(rows.image_id), table.card.findings)


def plant(truth: pd.DataFrame, missed: float, false: float, seed: int, path: Path) -> None:
    """Writes a table of corrections that makes right labels wrong."""
    drawn = np.random.default_rng(seed).random(truth.shape)
    flips = np.where(truth == 1, drawn < missed, drawn < false)
    images, columns = np.nonzero(flips)
    rows = pd.DataFrame({"image": truth.index[images], "finding": truth.columns[columns]})
    was = truth.to_numpy()[flips].astype(int)
    rows.assign(was=was, label=1 - was, who="jobs.benchmarks", why="planted").to_csv(path, index=False)


def planted(path: Path) -> int:
    return len(pd.read_csv(path))


def compare(workspace: Path, truth: pd.DataFrame) -> None:
    """Prints the precision of the first suspects, and the estimated shares beside the true ones."""
    report = json.loads((workspace / "label_quality/report.json").read_text(encoding="utf-8"))
    suspects = pd.read_csv(workspace / "label_quality/suspects.csv", keep_default_na=False)
    given, judged = labels_of(workspace), judged_images(report, workspace)
    wrong = (given != truth).loc[judged]
    found = Table("finding", "AUROC", "wrong", "suspects", "first 10", "first k", "k of wrong in suspects")
    shares = Table("finding", "of present: true", "estimate", "at most", "of absent: true", "estimate", "at most")
    for finding, part in report["findings"].items():
        rows = suspects[suspects.finding == finding]
        hits = wrong.loc[rows.image_id, finding].to_numpy()
        number = int(wrong[finding].sum())
        found.add_row(
            finding,
            f"{part['auroc']:.3f}",
            f"{number}",
            f"{len(rows)}",
            share(hits[:10]),
            share(hits[:number]),
            f"{hits.sum()} of {number}",
        )
        cells = []
        for value, name in ((1, "present"), (0, "absent")):
            has = given.loc[judged, finding] == value
            ends = part[f"wrong_{name}"]
            estimate = f"{ends['value']:.1%} [{100 * ends['low']:.1f}, {100 * ends['high']:.1f}]"
            cells += [share(wrong[finding][has]), estimate, f"{part[f'wrong_{name}_limit']['high']:.1%}"]
        shares.add_row(finding, *cells)
    console.print(found, shares)


def judged_images(report: dict, workspace: Path) -> list[str]:
    """The images that the trainings have predicted."""
    parts = [pd.read_parquet(Path(training) / "predictions.parquet").image_id for training in report["trainings"]]
    return sorted(set(pd.concat(parts)))


def share(hits: np.ndarray) -> str:
    return f"{np.mean(hits):.1%}" if len(hits) else "-"


def judge(workspace: Path, truth: pd.DataFrame, path: Path) -> None:
    """Fills in the table for judging as a reader would who is always right."""
    table = pd.read_csv(workspace / "label_quality/to_judge.csv", keep_default_na=False, dtype=str)
    right = [int(truth.loc[row.image, row.finding]) for row in table.itertuples()]
    table.assign(label=right, who="a perfect reader", why="seen").to_csv(path, index=False)


if __name__ == "__main__":
    run_command(main)
