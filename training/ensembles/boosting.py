"""Gradient boosting on age, sex and view alone: what a model knows that never looks at a film.

The answers to all combinations of the three are few, so the fitted trees become a table, which a graph can hold.
"""

from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from conf.errors import InputError
from conf.programs import versions_of
from conf.progress import track
from conf.settings import Settings
from conf.workspace import Workspace, update_summary
from etl.contract.schema import SPLITS
from etl.contract.version import TableVersion
from training.ensembles.members import PREDICTED, has_other_model
from training.measures.cells import interval_cell, value_cell
from training.measures.metrics import auroc_per_finding, has_both_classes, mean_over_findings
from training.measures.predictions import Predictions
from training.network.checkpoint import BEST, Checkpoint
from training.network.lookup import SHAPE, cells_of, everyone
from training.record.evaluation import FIGURES, evaluate
from training.record.tracking import TrackedRun

NETWORK = "gradient_boosting"
MAX_TREES = 200
TREES = {"learning_rate": 0.05, "max_leaf_nodes": 8, "min_samples_leaf": 20, "l2_regularization": 1.0}


def run(settings: Settings, workspace: Workspace) -> None:
    """Fits the table, and writes what a training writes: evaluation, predictions, figures, checkpoint, MLflow run.

    Raises InputError if the workspace holds another model, or if the training split knows none of the three.
    """
    if has_other_model(workspace, NETWORK):
        raise InputError(
            f"workspace {workspace.root} has another training, whose evaluation this one's would replace: choose "
            "another with --workspace, and name the table with --etl.table"
        )
    table = TableVersion.of(workspace, settings.training.delta_version, settings.etl.table)
    rows = {name: table.rows(name) for name in SPLITS}
    if not rows["train"][["age_years", "sex", "view"]].notna().to_numpy().any():
        raise InputError(
            f"the training split of {table.shards} knows neither age, sex nor view of any image: name their columns "
            "in etl.columns and run the ETL again, or leave this model out"
        )
    with workspace.exclusive(), TrackedRun(workspace, settings, table, None, NETWORK) as tracked:
        # Whatever happens meanwhile, it never stands beside another table's evaluation.
        (workspace.checkpoints / BEST).unlink(missing_ok=True)
        answers, num_trees = fit(rows["train"], rows["val"], table.card.findings, settings.training.seed)
        val, test = (predict(answers, rows[name]) for name in PREDICTED)
        report = evaluate(workspace, table, val, test, np.ones(len(table.card.findings)), settings.training.seed)
        checkpoint = Checkpoint(
            weights={"table": torch.from_numpy(answers)},
            model=NETWORK,
            findings=table.card.findings,
            size_px=0,
            pixel_mean=0.0,
            pixel_std=1.0,
            channels=1,
            tabular=True,
            epoch=0,
            val_auroc=mean_over_findings(auroc_per_finding(val.labels, val.logits)),
            delta_table_id=table.card.delta_table_id,
            delta_version=table.card.delta_version,
            run_id=tracked.run_id,
            commit=tracked.commit,
            settings={"training": asdict(settings.training)},
            software=versions_of("scikit-learn", "numpy"),
        )
        checkpoint.save(workspace.checkpoints / BEST)
        # The ensemble finds the table by it.
        table.name_in(workspace)
        tracked.log_evaluation(workspace, report)
        for name in FIGURES:
            tracked.log_figure(workspace.figures / f"{name}.png")
        update_summary(workspace, boosting={"trees": num_trees, "run_id": tracked.run_id})
    mean = report["splits"]["test"]["auroc"]["mean"]
    measured = f"mean AUROC {value_cell(mean['value'])}, 95% interval over patients {interval_cell(mean)}"
    print(f"Test split, age, sex and view alone: {measured}")
    print(f"Next: name {workspace.root} among the ensemble.members of training/ensemble.py")


def fit(train: pd.DataFrame, val: pd.DataFrame, findings: list[str], seed: int) -> tuple[np.ndarray, dict[str, int]]:
    """The table of answers, (cells, findings) float32 log-odds, and the number of trees of each finding.

    train, val: rows of the table. The number of trees is the best by the log loss of the validation split, 0 to
    MAX_TREES; 0, and for findings without both classes in the training split, is the training split's rate for all.
    Raises ValueError as check_predictions does.
    """
    labels, held_out = (np.stack(rows["findings"]).astype(np.float32) for rows in (train, val))
    learnable = has_both_classes(labels)
    people, val_people, every = (_columns(rows) for rows in (train, val, everyone()))
    answers, num_trees = np.empty((len(every), len(findings)), np.float32), {}
    for column, finding in enumerate(track(findings, "gradient boosting", len(findings), "finding")):
        known, of_val = ~np.isnan(labels[:, column]), ~np.isnan(held_out[:, column])
        present = labels[known, column] == 1
        rate = (present.sum() + 1) / (len(present) + 2)
        answers[:, column], num_trees[finding] = np.log(rate / (1 - rate)), 0
        if not learnable[column] or not of_val.any():
            continue
        films = people[known]
        if np.isnan(films[:, 0]).all():
            # scikit-learn 1.9 fails on a column without any value. On a constant one, no tree is split.
            films[:, 0] = 0
        trees = HistGradientBoostingClassifier(
            **TREES, max_iter=MAX_TREES, categorical_features=[1, 2], early_stopping=False, random_state=seed
        ).fit(films, present)
        signs = np.where(held_out[of_val, column] == 1, -1, 1)
        losses = [np.logaddexp(0, signs * answers[0, column]).mean()]
        losses += [
            np.logaddexp(0, signs * each.ravel()).mean() for each in trees.staged_decision_function(val_people[of_val])
        ]
        num_trees[finding] = best = int(np.argmin(losses))
        if best:
            staged = trees.staged_decision_function(every)
            answers[:, column] = next(each for number, each in enumerate(staged, 1) if number == best).ravel()
    return answers, num_trees


def predict(answers: np.ndarray, rows: pd.DataFrame) -> Predictions:
    """The table's answers for the rows of a split. answers: from `fit`."""
    labels = np.stack(rows["findings"]).astype(np.float32)
    return Predictions(rows["image_id"].to_numpy(), labels, answers[cells_of(rows)])


def _columns(rows: pd.DataFrame) -> np.ndarray:
    """Whole years, place of the sex and of the view, (rows, 3) float64; NaN unknown."""
    places = np.stack(np.unravel_index(cells_of(rows), SHAPE), axis=1).astype(np.float64)
    places[places == np.array(SHAPE) - 1] = np.nan
    return places
