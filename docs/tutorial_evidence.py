# %% [markdown]
# # From phantoms to evidence
#
# For a radiology resident with some Python, who wants to see how a network for chest radiographs is trained, and above
# all how you find out whether to believe it. You make films of two hospitals, train on one, test on the other, and look
# at what the network misses.
#
# The films are **phantoms**: generated pictures of a chest with planted findings. All numbers below show how the tools
# work, and say nothing about patients. With so few films they are also poor, which is part of the lesson.
# **Research use only, not for clinical use.**
#
# The page is a program: `python docs/tutorial_evidence.py` runs it in a minute or two, and each `# %%` begins a cell of
# a notebook. [tutorial.md](tutorial.md#7-from-phantoms-to-evidence) says how to open it as one. Every step is a command
# that you could type; Python only starts it, and reads the files that it leaves.

# %%
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from conf.workspace import Workspace
from etl.contract.version import TableVersion

# The project's folder, whether this is a script or a notebook in docs/.
HERE = Path(globals().get("__file__", "docs/tutorial_evidence.py")).resolve()
PROJECT = next(folder for folder in (*HERE.parents, *Path.cwd().parents) if (folder / "etl/preprocess.py").exists())
WORK = Path(os.environ.get("TUTORIAL_FOLDER", PROJECT / "runs/tutorial")).resolve()
HOSPITAL_A, HOSPITAL_B, SECOND = WORK / "hospital-a", WORK / "hospital-b", WORK / "second"
FIGURES = WORK / "figures"
# As they stand in a command, in case a folder has a blank in its name.
A, B, C, COMPARED, PYTHON = map(
    shlex.quote, map(str, (HOSPITAL_A, HOSPITAL_B, SECOND, WORK / "compared", sys.executable))
)
pd.set_option("display.width", 120, "display.max_columns", 12)
FIGURES.mkdir(parents=True, exist_ok=True)


def run(command: str, lines: int = 12) -> None:
    """Runs a command of the project, and prints it and the last lines of what it says."""
    print(f"$ {command}", flush=True)
    programs = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    # Without a notebook's own way of drawing, which the commands do not have.
    environment = {"PYSPARK_PYTHON": sys.executable, **os.environ, **programs, "MPLBACKEND": "agg"}
    ended = subprocess.run(
        shlex.split(command), cwd=PROJECT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    print(*ended.stdout.splitlines()[-lines:], "", sep="\n", flush=True)
    if ended.returncode:
        raise RuntimeError(f"the command above ended with code {ended.returncode}; its last lines say why")


# %% [markdown]
# ## 1. Films of hospital A
#
# The first stage, the ETL, makes 200 phantoms in the layout of NIH ChestX-ray14, decodes and checks each film, and
# stores them as a table. The films are small (64 pixels), so that everything below takes seconds.

# %%
SMALL = "--phantoms.num_images 200 --phantoms.size_px 256 --etl.sizes_px '[64]' --etl.rows_per_row_group 16"
run(f"spark-submit etl/preprocess.py --workspace {A} {SMALL}")

# %% [markdown]
# The films fall into three splits. The network learns on **train**; **val** (validation) decides when to stop and where
# the thresholds lie; **test** is looked at once, at the end. A patient with films in two splits would make the test too
# easy, so the ETL checks that there is none. Do not take its word: the table says who is where.


# %%
def films_of(workspace: Path) -> pd.DataFrame:
    """A row per film of the workspace's table: who is on it, which findings it has, and where they are."""
    return TableVersion.of(Workspace.at(str(workspace))).rows("train", "val", "test")


films = films_of(HOSPITAL_A)
patients = films.groupby("split").patient_id.agg(set)
print(films.groupby("split").agg(films=("image_id", "size"), patients=("patient_id", "nunique")))
assert not (patients.train & patients.test or patients.train & patients.val or patients.val & patients.test)

# %% [markdown]
# ## 2. Look at the films
#
# Nobody should train on films that they have not looked at. The red boxes are where findings were planted. Not every
# film has them: as in ChestX-ray14, boxes are rare, and on real films somebody must have drawn them.

# %%
card = json.loads((HOSPITAL_A / "card.json").read_text())
FINDINGS = card["findings"]


def show(axes: plt.Axes, film: pd.Series, workspace: Path, title: str) -> None:
    """Draws a film and its known boxes: finding, left, top, width and height of each, as shares of the film's side."""
    pixels = plt.imread(workspace / "phantoms/images" / film.image_id)
    axes.imshow(pixels, cmap="gray")
    for finding, left, top, width, height in np.reshape(film.boxes, (-1, 5)):
        side = len(pixels)
        corner = (left * side, top * side)
        axes.add_patch(plt.Rectangle(corner, width * side, height * side, fill=False, edgecolor="red"))
        axes.text(*corner, FINDINGS[int(finding)], color="red", fontsize=7, verticalalignment="bottom")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


figure, axes = plt.subplots(1, 4, figsize=(14, 4), layout="constrained")
with_boxes = films[films.boxes.str.len() > 0]
for place, (_, film) in zip(axes, with_boxes.head(4).iterrows(), strict=True):
    show(place, film, HOSPITAL_A, f"{film.image_id}, {film.split}")
figure.savefig(FIGURES / "films.png")

# %% [markdown]
# ## 3. Train
#
# A small residual network sees each training film twelve times, changed a little each time (rotated, shifted, zoomed,
# with more or less contrast). After each of these epochs it is measured on the validation films, and the best epoch is
# kept.

# %%
TRAINING = "--training.size_px 64 --training.batch_size 16 --training.epochs 12 --training.learning_rate 0.004"
run(f"{PYTHON} training/train.py --workspace {A} --training.model resnet10_half {TRAINING}")

# %% [markdown]
# ## 4. How good is it? And how sure are you?
#
# The **AUROC** of a finding is the chance that a film with the finding gets a higher score than one without: 0.5 is a
# coin, 1 is perfect. It is easily computed by hand; `predictions.parquet` has the scores of each test film.

# %%
evaluation = json.loads((HOSPITAL_A / "evaluation.json").read_text())
areas = pd.DataFrame(evaluation["splits"]["test"]["auroc"]).T.astype(float)
predictions = pd.read_parquet(HOSPITAL_A / "predictions.parquet").query("split == 'test'")
labels, scores = np.stack(predictions.labels), np.stack(predictions.logits)
column = FINDINGS.index("Effusion")
by_hand = roc_auc_score(labels[:, column], scores[:, column])
print(f"Effusion: {by_hand:.3f} by hand, {areas.value.Effusion:.3f} in evaluation.json")
assert np.isclose(by_hand, areas.value.Effusion)

# %% [markdown]
# One number is not evidence. Had other patients been in the test split, it would have been another number. The
# **interval** says how far: it holds the AUROCs of 95 in 100 test splits that are drawn from the same patients, with
# repetition. Patients are drawn, not films, because two films of one patient are much alike.

# %%
print(areas.round(3))
figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
known = areas.dropna()
axes.hlines(known.index, known.low, known.high, color="0.4")
axes.plot(known.value, known.index, "o")
axes.axvline(0.5, color="red", linestyle=":", label="a coin")
axes.set(xlabel=f"AUROC on {labels.shape[0]} test films of {predictions.patient_id.nunique()} patients, 95% interval")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig(FIGURES / "auroc.png")

# %% [markdown]
# The intervals are as wide as they look. From a handful of patients with a finding nobody can tell a good network from
# a coin, whatever the point in the middle says. Remember this figure when you read a paper without intervals.
#
# ## 5. Register
#
# Registering calibrates the probabilities, makes a fast INT8 graph, measures it on the test films, and puts it into a
# registry. A **gate** then decides whether it may become the champion, the model in service. With so few patients it
# usually refuses, and it is right. The model stays a challenger that you can test all the same.

# %%
run(f"{PYTHON} inference/register.py --workspace {A} --inference.num_attempts 1", lines=14)

# %% [markdown]
# Beside the model lies `reporting.md`: what a paper on this model has to say (CLAIM 2024 and TRIPOD+AI), answered as
# far as the pipeline knows it. The rest is yours, and no program can write it for you. Its first lines:

# %%
_, _, yours = (HOSPITAL_A / "model/reporting.md").read_text().partition("## What a person must still write")
print(*yours.strip().splitlines()[:8], sep="\n")

# %% [markdown]
# ## 6. Another hospital
#
# The test films came from the hospital that taught the network. Other hospitals have other machines, more bedside films
# and other patients. The phantoms of hospital B are harder and noisier, and have fewer findings. Both hospitals number
# their patients from 1, so you have to say that patients of the same number are not the same people (`same_patients
# no`); otherwise the command stops, because a patient whom the training has seen would flatter the model.

# %%
run(f"spark-submit etl/preprocess.py --workspace {B} --phantoms.hospital b --phantoms.seed 7 {SMALL}", lines=4)
version = json.loads((HOSPITAL_A / "summary.json").read_text())["registry"]["version"]
films_b = f"--scoring.source {B} --validation.same_patients no"
run(f"{PYTHON} inference/validate.py --workspace {A} {films_b} {version}", lines=6)

# %%
elsewhere = HOSPITAL_A / "external/hospital-b"
results = pd.read_csv(elsewhere / "findings.csv", index_col="finding")
print(results[["positives", "auroc", "own_test_auroc", "own_test_change"]].round(3))
report = json.loads((elsewhere / "report.json").read_text())
print(f"Unlike the films of hospital A, so that no finding is called: {report['unfamiliar']['value']:.0%} of the films")

figure, axes = plt.subplots(figsize=(9, 4), layout="constrained")
measured = results.dropna(subset=["auroc", "own_test_auroc"])
axes.plot(measured.own_test_auroc, measured.index, "o", label="hospital A, test split")
axes.plot(measured.auroc, measured.index, "D", label="hospital B, with its interval")
axes.hlines(measured.index, measured.auroc_low, measured.auroc_high, color="C1")
axes.axvline(0.5, color="red", linestyle=":", label="a coin")
axes.set(xlabel="AUROC")
axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
figure.savefig(FIGURES / "hospital_b.png")

# %% [markdown]
# ## 7. Read the misses
#
# An AUROC is a mean over many films. What you would want to know on call is which findings were missed, and on whom.
# `misses.csv` gives the share of missed findings by sex, age and view, at the thresholds that the model ships with.
# (A film that is unlike the training data counts as missed: the model calls nothing on it.)

# %%
misses = pd.read_csv(elsewhere / "misses.csv")
print(misses.sort_values("positives", ascending=False).head(8).round(2).to_string(index=False))

# %% [markdown]
# Then look at them. These films have the finding that most films of hospital B have, and got the lowest probabilities.
# Is it subtle, hidden by the noise, or at the edge of the film? On real films, this hour with a colleague teaches more
# about a model than any table.

# %%
finding = results.positives.drop("mean").idxmax()
column = FINDINGS.index(finding)
answers = pd.read_parquet(elsewhere / "predictions.parquet")
answers["probability"] = [probabilities[column] for probabilities in answers.probabilities]
missed = answers[[labels[column] == 1 for labels in answers.labels]].nsmallest(4, "probability")
elsewhere_films = films_of(HOSPITAL_B).set_index("image_id", drop=False)
figure, axes = plt.subplots(1, 4, figsize=(14, 4), layout="constrained")
for place, answer in zip(axes, missed.itertuples(), strict=True):
    show(place, elsewhere_films.loc[answer.image_id], HOSPITAL_B, f"{finding}: probability {answer.probability:.2f}")
figure.savefig(FIGURES / "misses.png")

# %% [markdown]
# ## 8. Is another network better?
#
# Train a simpler network on the same films, and compare. The difference is **paired**: both are measured on the same
# draws of the same patients, so a difference can be certain although both intervals overlap. If its interval holds 0,
# you do not know which network is better, and a paper that says so is more honest than one with a winner.

# %%
same_films = f"--etl.table {A}"
run(
    f"{PYTHON} training/train.py --workspace {C} {same_films} --training.model simple_cnn {TRAINING}",
    lines=4,
)
run(f"{PYTHON} jobs/compare.py --output {COMPARED} {A} {C}")

# %%
compared = pd.read_csv(WORK / "compared/compare.csv", index_col="run")
print(
    compared[["network", "parameters", "auroc_mean", "difference_mean", "difference_mean_low", "difference_mean_high"]]
)

# %% [markdown]
# ## What you have shown, and what not
#
# - The whole way works: films, table, network, registry, a test elsewhere, a comparison. Every step left files that
#   somebody else can check.
# - Nothing about patients. Phantoms are drawn by a program, and their labels are all true, which those of radiographs
#   never are.
# - Next: set `--phantoms.num_images 2000` and `--training.epochs 20` above and watch the intervals shrink; recalibrate
#   for hospital B (`--validation.recalibrate true`, [evidence.md](evidence.md)); or take your own films
#   ([tutorial.md](tutorial.md#6-use-your-own-images)).

# %%
print(f"Figures: {', '.join(sorted(path.name for path in FIGURES.iterdir()))} in {FIGURES}")
