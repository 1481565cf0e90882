"""Reading a study."""

from pathlib import Path

import pytest

from conf.errors import InputError
from conf.settings import Training
from jobs.studies.study import base_of, read_study

PROJECT = Path(__file__).parents[3]
BASE = "workspace: runs/x\ntraining: {model: simple_cnn, epochs: 5, size_px: 256}\n"


@pytest.fixture
def write(tmp_path):
    """Writes a study beside its base, and returns its path."""
    (tmp_path / "base.yaml").write_text(BASE)

    def put(text: str) -> str:
        (tmp_path / "study.yaml").write_text(text)
        return str(tmp_path / "study.yaml")

    return put


def test_each_named_run_is_trained_with_each_combination(write):
    study = read_study(
        write(
            "base: base.yaml\nsettings: {training.epochs: 7}\nruns: {small: {}, large: {model: resnet18}}\n"
            "vary: {seed: [0, 1], size_px: [64, 96]}\n"
        )
    )
    assert list(study.runs) == [
        f"{name}-seed{seed}-size_px{size}" for name in ("small", "large") for seed in (0, 1) for size in (64, 96)
    ]
    training = study.runs["large-seed1-size_px96"].training
    assert training == Training(model="resnet18", seed=1, size_px=96, epochs=7)
    assert (study.name, study.sizes_px) == ("study", [64, 96])


def test_the_command_line_wins_over_the_run_over_the_recipe_over_the_study_over_the_base(write, tmp_path):
    (tmp_path / "recipe.yaml").write_text("training: {epochs: 3, learning_rate: 0.5, batch_size: 4, seed: 3}\n")
    text = "base: base.yaml\nsettings: {training.seed: 2, training.patience: 2}\n"
    text += "runs: {a: {recipe: recipe.yaml, batch_size: 5}, b: {}}\n"
    a, b = read_study(write(text), ["--training.learning_rate", "0.25"]).runs.values()
    wanted = {"model": "simple_cnn", "learning_rate": 0.25, "patience": 2}
    assert a.training == Training(**wanted, epochs=3, batch_size=5, seed=3)
    assert b.training == Training(**wanted, epochs=5, seed=2)


def test_a_scenario_of_the_command_line_takes_the_place_of_the_base(write, tmp_path):
    file = write("base: base.yaml\nvary: {seed: [0, 1]}\n")
    (tmp_path / "other.yaml").write_text("training: {model: vgg16, size_px: 96}\n")
    assert base_of(file) == str(tmp_path / "base.yaml")
    study = read_study(file, base=str(tmp_path / "other.yaml"))
    assert {run.training.model for run in study.runs.values()} == {"vgg16"}


def test_a_quick_try_has_small_images_and_one_epoch_per_stage(write):
    text = "base: base.yaml\nruns: {head: {head_epochs: 9, epochs: 0}, all: {size_px: 64}}\n"
    head, everything = read_study(write(text), quick=True).runs.values()
    assert (head.training.size_px, head.training.head_epochs, head.training.epochs) == (64, 1, 0)
    assert (everything.training.size_px, everything.training.epochs) == (32, 1)


@pytest.mark.parametrize("file", sorted((PROJECT / "conf" / "studies").glob("*.yaml")), ids=lambda file: file.name)
def test_the_studies_that_come_along_are_read_and_their_quick_try_too(file):
    study = read_study(str(file))
    quick = read_study(str(file), ["--training.weights="], str(PROJECT / "conf" / "demo.yaml"), quick=True)
    assert list(quick.runs) == list(study.runs)
    assert all(run.etl.source == "phantoms" for run in quick.runs.values())
    assert "jobs/sweep.py conf/studies/" + file.name in file.read_text()


def test_the_study_of_nine_trains_the_head_alone_or_everything():
    runs = read_study(str(PROJECT / "conf" / "studies" / "godonou.yaml")).runs
    assert len(runs) == 9
    for name, run in runs.items():
        assert ("head" in name) == (run.training.epochs == 0)
        assert name.endswith(str(run.training.size_px))
        assert run.etl.val_fraction == 0.3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: base.yaml\n", "describes 1 run, expected two or more"),
        ("base: base.yaml\nruns: {a: {}}\n", "describes 1 run, expected two or more"),
        ("base: base.yaml\nvary: {seed: [1]}\n", "describes 1 run"),
        ("base: base.yaml\nvary: {sede: [1, 2]}\n", "training has no setting sede; did you mean seed?"),
        ("base: base.yaml\nruns: {a: {training.model: x}, b: {}}\n", "no setting training.model; did you mean model?"),
        ("base: base.yaml\nvary: {seed: 1}\n", "seed is no list of values"),
        ("base: base.yaml\nvary: {seed: []}\n", "seed is no list of values"),
        ("base: base.yaml\nvary: {seed: [1, 1]}\n", "'seed1' would be the name of two runs"),
        ("base: base.yaml\nvary: {seed: [[1], 2]}\n", "seed has no single value"),
        ("base: base.yaml\nruns: {a: {seed: }, b: {}}\n", "seed has no single value"),
        ("base: base.yaml\nruns: {a: {}, b: {}}\n", "a and b would be the same training"),
        ("base: base.yaml\nruns: {a: {seed: 1}, b: {}}\nvary: {seed: [1, 2]}\n", "both in `runs` (a) and in `vary`"),
        ("base: base.yaml\nruns: {a: {seed: 1}, a: {}}\n", "a is given twice"),
        ("base: base.yaml\nruns: {a/b: {seed: 1}, c: {}}\n", "'a/b' would be the name of a run"),
        ("base: base.yaml\nruns: {a: {delta_version: 1}, c: {}}\n", "delta_version is the same in all runs"),
        ("base: base.yaml\nvary: {seed: [a, 1]}\n", "run seeda: "),
        ("base: base.yaml\nsettings: {training.epoch: 1}\nvary: {seed: [0, 1]}\n", "did you mean --training.epochs?"),
        ("base: base.yaml\nvarry: {seed: [0, 1]}\n", "unknown key varry; did you mean vary?"),
        ("base: nothing.yaml\nvary: {seed: [0, 1]}\n", "nothing.yaml cannot be read"),
        ("base: [a]\nvary: {seed: [0, 1]}\n", "base has no single value"),
        (
            "base: base.yaml\nruns: {a: {recipe: base.yaml, epochs: 1}, b: {recipe: no.yaml}}\n",
            "no.yaml cannot be read",
        ),
        ("settings: {workspace: x}\nvary: {seed: [0, 1]}\n", "workspace is no part of a study"),
        ("settings: {tracking_server: 'http://x'}\nvary: {seed: [0, 1]}\n", "give it on the command line"),
        (
            "settings: {training.epochs: 0, training.head_epochs: 1}\nruns: {a: {}, b: {learning_rate: 1}}\n",
            "a and b would be the same training",
        ),
        (f"base: base.yaml\nruns: {{{'a' * 101}: {{}}, b: {{seed: 1}}}}\n", "up to 100 letters"),
        ("base: base.yaml\nruns: {[a]: {}, b: {}}\n", "a list or mapping stands where a name is expected"),
        ("vary: [a]\n", "vary has no entries"),
        ("- a\n", "is no mapping"),
        ("a: {\n", "is no YAML file"),
        ("", "is no mapping"),
    ],
)
def test_what_is_no_study_is_said(write, text, said):
    with pytest.raises(InputError) as stopped:
        read_study(write(text))
    assert said in str(stopped.value)
    assert "study.yaml" in str(stopped.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"no\.yaml cannot be read"):
        read_study(str(tmp_path / "no.yaml"))


def test_a_setting_of_the_command_line_that_makes_runs_alike_is_said(write):
    with pytest.raises(InputError, match="seed0 and seed1 would be the same training"):
        read_study(write("base: base.yaml\nvary: {seed: [0, 1]}\n"), ["--training.seed", "4"])
