import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from etl.contract.schema import NIH_FINDINGS
from training.measures.calibration import bin_reliability
from training.measures.intervals import bootstrap_areas
from training.measures.subgroups import subgroup_table
from training.record import figures
from training.record.figures import draw_curves, draw_history, draw_reliability, draw_roc, draw_subgroups

TITLE = "Test split, $table$_1, Delta version 3"


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)  # of files that other tests left to the garbage collector
        yield
    assert not plt.get_fignums()


@pytest.fixture
def drawn(monkeypatch):
    """The last figure, as it was when it was saved, with every text inside its edges and no legend over a curve."""
    kept = []
    save = figures.save_figure

    def check(figure, path):
        figure.canvas.draw()
        renderer, edges = figure.canvas.get_renderer(), figure.bbox.padded(1)
        for text in figure.findobj(plt.Text):
            if text.get_text() and text.get_visible() and text.axes not in (None, *off(figure)):
                box = text.get_window_extent(renderer)
                assert edges.containsx(box.x0) and edges.containsx(box.x1), text
                assert edges.containsy(box.y0) and edges.containsy(box.y1), text
        for legend in [axes.get_legend() for axes in figure.axes if axes.get_legend()] + figure.legends:
            box = legend.get_window_extent(renderer)
            assert edges.containsy(box.y0) and edges.containsx(box.x1), "a legend is cut off"
            if not figure.axes[0].get_ylabel().endswith("cross-entropy"):
                assert not any(box.overlaps(axes.get_window_extent(renderer)) for axes in figure.axes if axes.axison)
        kept.append(figure)
        figure.set_layout_engine("none")  # the places are settled, and settling them is what takes long
        save(figure, path)

    def off(figure):
        return [axes for axes in figure.axes if not axes.axison]

    monkeypatch.setattr(figures, "save_figure", check)
    return kept


def make_predictions(num_findings):
    rng = np.random.default_rng(0)
    labels = (rng.random((200, num_findings)) < 0.4).astype(np.float32)
    labels[::9] = np.nan
    return labels, rng.normal(size=labels.shape) + np.nan_to_num(labels), np.arange(200) // 2


def texts_of(figure):
    return {text.get_text() for text in figure.findobj(plt.Text)}


@pytest.mark.parametrize("num_findings", [3, 14])
def test_curves_name_their_areas_and_intervals_in_a_legend_that_fits(tmp_path, drawn, num_findings):
    findings = list(NIH_FINDINGS[-num_findings:])
    labels, scores, patients = make_predictions(num_findings)
    if num_findings == 14:
        labels[labels[:, 13] == 1, 13] = 0
    areas = bootstrap_areas(labels, scores, patients, num_resamples=20, seed=0)
    draw_curves(tmp_path / "new" / "curves.png", labels, scores, findings, areas, TITLE)
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    texts = texts_of(drawn[-1])
    assert TITLE in texts
    for intervals in (areas.auroc, areas.average_precision):
        positives = int((labels[:, 0] == 1).sum())
        interval = f"{intervals.values[0]:.3f} [{intervals.low[0]:.3f}, {intervals.high[0]:.3f}]"
        assert f"{findings[0]} {interval} (n={positives})" in texts
    assert (num_findings == 14) != any("Hernia" in text for text in texts)
    lines = [line for axes in drawn[-1].axes[:2] for line in axes.lines if line.get_label()[0] != "_"]
    looks = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(looks) == num_findings - (num_findings == 14)
    draw_roc(tmp_path / "roc.png", labels, scores, findings, TITLE)
    assert any(text.startswith(f"{findings[0]} {areas.auroc.values[0]:.3f} (n=") for text in texts_of(drawn[-1]))


def test_curves_of_nothing_defined_are_empty(tmp_path, drawn):
    labels, scores = np.full((4, 2), np.nan), np.zeros((4, 2))
    draw_roc(tmp_path / "roc.png", labels, scores, ["A", "B"], TITLE)
    areas = bootstrap_areas(labels, scores, np.arange(4), num_resamples=5, seed=0)
    draw_curves(tmp_path / "curves.png", labels, scores, ["A", "B"], areas, TITLE)
    same = bin_reliability(labels, scores, 5)
    draw_reliability(tmp_path / "reliability.png", {"before": same, "after": same}, ["A", "B"], TITLE)
    assert "B\nECE undefined to undefined" in texts_of(drawn[-1])


@pytest.mark.parametrize("num_findings", [14])
def test_reliability_shows_both_errors_of_each_finding(tmp_path, drawn, num_findings):
    findings = list(NIH_FINDINGS[-num_findings:])
    labels, logits, _ = make_predictions(num_findings)
    before, after = (bin_reliability(labels, expit(logits / scale), 10) for scale in (1, 2))
    draw_reliability(tmp_path / "reliability.png", {"before": before, "after": after}, findings, TITLE)
    errors = [part.expected_calibration_error for part in (before, after)]
    texts = texts_of(drawn[-1])
    assert f"{findings[-1]}\nECE {errors[0][-1]:.3f} to {errors[1][-1]:.3f}" in texts
    assert any(text.startswith(TITLE) and text.endswith(f"to {errors[1].mean():.3f}") for text in texts)


def test_subgroups_have_a_dot_and_their_counts(tmp_path, drawn):
    labels, scores, patients = make_predictions(3)
    images = pd.DataFrame({"patient_id": patients, "sex": "F", "age_years": np.arange(200) % 90, "view": "PA"})
    labels[images["age_years"] >= 80, 1] = 0
    table = subgroup_table(labels, scores, images, ["A", "B", "C"], num_resamples=10, seed=0)
    draw_subgroups(tmp_path / "subgroups.png", table, TITLE)
    texts = texts_of(drawn[-1])
    assert {"sex F", "age 0-17", "age 80+", "view PA"} <= texts
    assert sum(text.endswith("patients, 2 findings") for text in texts) == 1
    dots = drawn[-1].axes[0].collections[1].get_offsets()[:, 0]
    np.testing.assert_allclose(dots, table.loc[table["finding"] == "mean", "auroc"])


def test_the_history_of_a_training(tmp_path, drawn):
    epochs = [{"train_loss": 1 / n, "val_loss": 1.1 / n, "val_auroc_mean": 0.5 + n / 100} for n in range(1, 30)]
    draw_history(tmp_path / "training.png", list(np.linspace(1, 0.1, 290)), epochs, "cross-entropy", "Delta version 3")
    assert {"cross-entropy", "Loss (Delta version 3)"} <= texts_of(drawn[-1])


def test_names_are_no_formulas_and_an_underscore_hides_none(tmp_path, drawn):
    labels, scores, _ = make_predictions(2)
    draw_roc(tmp_path / "roc.png", labels, scores, ["_Edema", "$x^{$"], "$y^{$")
    legend = {text.get_text().strip().split()[0] for text in drawn[-1].axes[0].get_legend().get_texts()}
    assert legend == {"_Edema", "$x^{$"}
    epochs = [{"train_loss": 1, "val_loss": 1, "val_auroc_mean": 0.5}]
    draw_history(tmp_path / "training.png", [1.0], epochs, "cross-entropy", "$y^{$, Delta version 3")
    assert "Loss ($y^{$, Delta version 3)" in texts_of(drawn[-1])
