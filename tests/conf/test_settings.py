import pytest

from conf.errors import InputError
from conf.settings import (
    DEMO_CONFIG,
    Etl,
    Inference,
    Jobs,
    Phantoms,
    Settings,
    Training,
    load_settings,
    with_same_arguments,
)


def test_the_next_command_has_the_same_arguments_but_those_for_once(monkeypatch):
    once = ["--etl.rebuild", "true", "--jobs.keep_versions=[0, 1]", "--training.resume=true"]
    monkeypatch.setattr("sys.argv", ["x.py", *once, "--workspace", "a b", "--etl.seed=1"])
    assert with_same_arguments("y") == "y --workspace 'a b' --etl.seed=1"


def test_no_arguments_choose_the_demo():
    assert load_settings("t", []).etl.rows_per_row_group == 32


def test_every_scenario_is_run_by_make_recipes():
    from tests.jobs.test_recipes import CHAINS

    scenarios = {path.stem for path in DEMO_CONFIG.parent.glob("*.yaml")}
    assert {recipe for chain in CHAINS.values() for recipe in chain} == scenarios


@pytest.mark.parametrize("scenario", sorted(DEMO_CONFIG.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_every_scenario_is_valid(scenario):
    assert load_settings("test", ["--config", str(scenario)]).workspace == f"runs/{scenario.stem}"


def test_a_chosen_file_replaces_the_demo_entirely(tmp_path):
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("workspace: elsewhere\n")
    assert load_settings("t", ["--config", str(scenario)]) == Settings(workspace="elsewhere")


def test_the_command_line_wins_over_the_file(tmp_path):
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("etl:\n  sizes_px: [64]\n")
    settings = load_settings("t", [f"--config={scenario}", "--etl.sizes_px", "[128, 96]"])
    assert settings.etl.sizes_px == [128, 96]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--etl.sede", "3"], "etl.sede"),
        (["--conf", "conf/nih.yaml"], "--conf"),
        (["--etl.seed", "x"], "etl.seed"),
        (["--training.learning_rate", "fast"], "training.learning_rate"),
        (["--config", "/nowhere/at.yaml"], "/nowhere/at.yaml"),
    ],
)
def test_a_wrong_setting_ends_with_code_2_and_its_name(arguments, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_settings("t", arguments)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


def test_an_unknown_key_in_a_file_is_named(tmp_path, capsys):
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("training:\n  epoch: 3\n")
    with pytest.raises(SystemExit) as stopped:
        load_settings("t", ["--config", str(scenario)])
    assert stopped.value.code == 2
    assert "epoch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (Phantoms, {"num_images": 3}),
        (Etl, {"sizes_px": []}),
        (Etl, {"sizes_px": [64, 64]}),
        (Etl, {"sizes_px": [9]}),
        (Etl, {"val_fraction": 1.0}),
        (Etl, {"rows_per_file": 1}),
        (Training, {"epochs": 0}),
        (Training, {"device": "tpu"}),
        (Training, {"learning_rate": float("inf")}),
        (Training, {"pos_weight_max": -3.0}),
        (Training, {"experiment": " "}),
        (Inference, {"registered_model": "a/b"}),
        (Inference, {"num_calibration_images": 0}),
        (Inference, {"max_finding_drop": 1.5}),
        (Jobs, {"num_ranks": 0}),
    ],
)
def test_values_out_of_range_are_input_errors(section, wrong):
    with pytest.raises(InputError, match=f"{section.__name__.lower()}.{next(iter(wrong))}"):
        section(**wrong)
