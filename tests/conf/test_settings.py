import re
import shlex

import pytest

from conf import reference
from conf.arguments import (
    DEMO_CONFIG,
    add_switch,
    load_arguments,
    load_settings,
    with_same_settings,
)
from conf.argv import repeats
from conf.errors import InputError
from conf.hints import knobs
from conf.settings import Dicom, Etl, Inference, Jobs, LabelQuality, Phantoms, Settings, Training
from tests.jobs.chains import CHAINS, OTHERS


def test_the_next_command_has_the_same_settings_but_no_argument_of_this_command(monkeypatch):
    once = ["--etl.rebuild", "true", "--keep_versions=[0, 1]", "--training.resume=true", "--resume", "3", "--why", "x"]
    monkeypatch.setattr("sys.argv", ["x.py", *once, "--workspace", "a b", "4", "--etl.seed=1"])
    assert with_same_settings("y") == "y --workspace 'a b' --etl.seed=1"


def add_own(parser) -> None:
    parser.add_argument("version", nargs="?", type=int, default=0)
    parser.add_argument("--why", default="no reason")
    add_switch(parser, "--rebuild", "everything")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["3", "--why", "x", "--rebuild"], (3, "x", True)),
        (["--inference.version", "3", "--inference.why=x", "--etl.rebuild", "true"], (3, "x", True)),
        (["--etl.rebuild=false", "--training.resume", "true", "--workspace", "w"], (0, "no reason", False)),
        (["--etl.rebuild", "--training.resume", "--workspace=w"], (0, "no reason", True)),
        (["--why", "training.resume"], (0, "training.resume", False)),
        (["--rebuild", "3", "--workspace=w"], (3, "no reason", True)),
        (["--rebuild", "no", "3", "--workspace=w"], (3, "no reason", False)),
    ],
)
def test_the_old_spelling_of_a_commands_own_argument_still_works_and_says_so(words, expected, capsys):
    settings, options = load_arguments("t", "", add_own, words)
    assert settings.workspace == ("w" if words[-1].endswith("w") else "runs/demo")
    assert (options.version, options.why, options.rebuild) == expected
    said = capsys.readouterr().err
    assert said.count("note: ") == sum(word.startswith("--") and "." in word for word in words)
    dropped = "--training.resume" in words
    assert ("--training.resume has no effect here; it is now the argument --resume of" in said) == dropped


@pytest.mark.parametrize("words", [["--etl.columns.findings", "Mass", "--etl.sizes_px=64", "--etl.views", "PA"]])
def test_a_single_value_of_a_list_is_a_list_of_one(words):
    etl = load_settings("t", words).etl
    assert (etl.columns.findings, etl.sizes_px, etl.views) == (["Mass"], [64], ["PA"])
    assert load_settings("t", ["--etl.columns.findings", "[a, b]"]).etl.columns.findings == ["a", "b"]


@pytest.mark.parametrize("words", [["--etl.columns.findings", "Mass,Edema"], ["--etl.views=PA,AP"], ["--etl.exclude"]])
def test_several_values_without_brackets_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        load_settings("t", words)
    said = capsys.readouterr().err
    assert words[0].partition("=")[0][2:] in said and ("[" in said.partition("error: ")[2] or len(words) == 1)


def test_a_former_switch_leaves_the_next_word_alone():
    def add_files(parser) -> None:
        parser.add_argument("files", nargs="+")

    for switch in (["--etl.rebuild"], ["--etl.rebuild", "true"], ["--training.resume=false"]):
        assert load_arguments("t", "", add_files, [*switch, "a.png", "b.png"])[1].files == ["a.png", "b.png"]


def test_a_single_value_of_a_commands_own_list_is_a_list_of_one(capsys):
    def add_versions(parser) -> None:
        parser.add_argument("--keep", type=list[int], default=[])

    assert load_arguments("t", "", add_versions, ["--keep", "3"])[1].keep == [3]
    with pytest.raises(SystemExit):
        load_arguments("t", "", add_versions, ["--keep", "three"])
    assert "keep is 'three', expected a list" in capsys.readouterr().err


def test_a_version_as_an_option_is_not_taken_for_another_setting(capsys):
    with pytest.raises(SystemExit):
        load_arguments("t", "", add_own, ["--version", "3"])
    assert "give it without an option: `" in (said := capsys.readouterr().err) and "did you mean" not in said
    with pytest.raises(SystemExit):
        load_arguments("t", "", add_own, ["abc"])
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--etl.sede", "3"], "did you mean --etl.seed?"),
        (["--epochs", "3"], "did you mean --training.epochs or --lungs.epochs?"),
        (["--mode", "int8"], "did you mean --scoring.mode or --serving.mode?"),
        (["--training.optimiser", "sgd"], "did you mean --training.optimizer?"),
        (["--training.optimizer", "sdg"], "training.optimizer is 'sdg', expected one of adamw, adam, sgd"),
        (["--training.epochs", "ten"], "training.epochs is 'ten', expected a whole number, at least 0"),
        (["--training", "3"], "training is a section: give one of its settings, such as --training."),
        (
            ["--etl.views", "PA", "AP"],
            "unrecognized arguments: AP; write the list in brackets: --etl.views '[PA, AP]'",
        ),
        (["etl.seed=3"], "did you mean --etl.seed?"),
        (["\u2013\u2013etl.seed", "3"], "did you mean --etl.seed?"),
        (["--etl.quality.lateral"], "etl.quality.lateral has no value, expected true or false"),
        (["--trainin.epochs", "3"], "did you mean --training.epochs?"),
        (["--etl.views", "[FRONT]"], "etl.views is 'FRONT', expected any of PA, AP, LATERAL"),
    ],
)
def test_a_wrong_setting_is_answered_with_what_is_meant(arguments, hint, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_settings("t", arguments)
    assert stopped.value.code == 2
    assert hint in capsys.readouterr().err


def test_help_shows_what_the_command_reads_and_with_all_everything(capsys):
    shown = {}
    for words in (["--help"], ["-h", "--all"]):
        with pytest.raises(SystemExit):
            load_settings("t", words, reads=("scoring", "inference.batch_size"))
        shown[len(words)] = capsys.readouterr().out
    for name in knobs():
        assert f"--{name} " in shown[2] or f"--{name},\n" in shown[2] or f"--{name}+" in shown[2], name
        in_short = name in ("workspace", "tracking_server", "inference.batch_size") or name.startswith("scoring.")
        assert (f"--{name} " in shown[1]) == in_short, name
    assert "at least 1" in shown[1] and "{int8,fp16,fp32,onnx,torch}" in shown[1]


def test_no_arguments_choose_the_demo():
    assert load_settings("t", []).etl.rows_per_row_group == 32


def test_every_scenario_is_run_by_make_recipes():
    scenarios = {path.stem for path in DEMO_CONFIG.parent.glob("*.yaml")}
    assert {recipe for chain in CHAINS.values() for recipe in chain} | OTHERS == scenarios


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
    ],
)
def test_a_wrong_setting_ends_with_code_2_and_its_name(arguments, named, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_settings("t", arguments)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "wrong"),
    [
        (Phantoms, {"num_images": 3}),
        (Etl, {"sizes_px": []}),
        (Dicom, {"modalities": []}),
        (Dicom, {"modalities": ["cr"]}),
        (Etl, {"sizes_px": [64, 64]}),
        (Etl, {"sizes_px": [9]}),
        (Etl, {"grey_bits": 7}),
        (Etl, {"grey_bits": 17}),
        (Etl, {"val_fraction": 1.0}),
        (Etl, {"rows_per_file": 1}),
        (Etl, {"test_fold": 1}),
        (Etl, {"test_fold": 5, "split": "hashed"}),
        (Etl, {"test_fold": 3, "split": "hashed", "test_fraction": 0.3}),
        (Etl, {"shared_patients": ["a", "b"]}),
        (Etl, {"sources": ["a.yaml"], "shared_patients": ["a"]}),
        (Training, {"epochs": 0}),
        (Training, {"device": "tpu"}),
        (Training, {"learning_rate": float("inf")}),
        (Training, {"pos_weight_max": -3.0}),
        (Training, {"experiment": " "}),
        (Inference, {"registered_model": "a/b"}),
        (Inference, {"num_calibration_images": 0}),
        (Inference, {"max_finding_drop": 1.5}),
        (Inference, {"error_rate": 0.5}),
        (Inference, {"error_rate": -0.1}),
        (LabelQuality, {"min_labels": 1}),
        (LabelQuality, {"shown": 0}),
        (Jobs, {"num_ranks": -1}),
    ],
)
def test_values_out_of_range_are_input_errors(section, wrong):
    name = re.sub("(?<=[a-z])(?=[A-Z])", "_", section.__name__).lower()
    with pytest.raises(InputError, match=rf"{name}\.{next(iter(wrong))}"):
        section(**wrong)


def test_the_reference_of_the_settings_is_up_to_date(capsys):
    reference.main()
    page = (DEMO_CONFIG.parents[1] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out == page, "run `python -m conf.reference > docs/settings.md`"
    assert all(f"| `{name}` |" in page for name in knobs())


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (
            ["--etl.exclude", "a.csv", "--etl.exclude", "b.csv"],
            "etl.exclude is given twice: write --etl.exclude '[a.csv, b.",
        ),
        (["--etl.views=PA", "--etl.views", "[AP]"], "etl.views is given twice: write --etl.views '[PA, AP]'"),
        (["--etl.sizes_px", "[64]", "--etl.seed", "1", "--etl.sizes_px=[96, 128]"], "--etl.sizes_px '[64, 96, 128]'"),
        (["--etl.columns.findings", "A", "--etl.columns.findings", "B"], "etl.columns.findings is given twice"),
        (["--etl.dicom.modalities", "CR", "--etl.dicom.modalities", "CR"], "etl.dicom.modalities is given twice"),
        (["--keep", "1", "--keep", "2"], "keep is given twice: write --keep '[1, 2]'"),
    ],
)
def test_a_list_that_is_given_twice_is_refused(words, fault, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_arguments("t", "", lambda parser: parser.add_argument("--keep", type=list[int], default=[]), words)
    assert stopped.value.code == 2
    assert fault in capsys.readouterr().err


def test_a_list_may_be_extended(capsys):
    assert load_settings("t", ["--etl.exclude", "a", "--etl.exclude+", "b", "--etl.exclude+=c"]).etl.exclude == list(
        "abc"
    )
    assert capsys.readouterr().err == ""


def test_several_scenarios_and_a_switch_given_twice_need_no_note(capsys):
    repeated = ["--rebuild", "--config", "a.yaml", "--config", "b.yaml", "--rebuild", "--etl.seed", "4"]
    assert repeats(repeated, {"--rebuild": bool, "--config": str, "--etl.seed": int}) == ""
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("second", "note"), [("2", "note: --etl.seed is given twice: 2 counts\n"), ("1", "")])
def test_of_a_setting_that_is_given_twice_the_last_value_counts_and_is_said(second, note, capsys):
    assert load_settings("t", ["--etl.seed", "1", f"--etl.seed={second}"]).etl.seed == int(second)
    assert capsys.readouterr().err == note


@pytest.mark.parametrize(
    ("setting", "step"),
    [
        ("views: PA", "etl.views is 'PA', expected a list: write [PA]\n"),
        ("views: pa", "etl.views is 'pa', expected any of PA, AP, LATERAL\n"),
        ("sizes_px: 64", "etl.sizes_px is '64', expected a list: write [64]\n"),
        ("exclude: a.csv", "etl.exclude is 'a.csv', expected a list: write [a.csv]\n"),
        ("columns: {findings: Mass}", "expected a list: write [Mass]\n"),
        ("columns: {findings: Pleural Effusion}", 'expected a list: write ["Pleural Effusion"]\n'),
        ("columns: {findings: [no]}", "expected a list; put words such as no, and numbers, in quotes\n"),
        ("columns: {findings: 'Mass, Edema'}", "expected a list in brackets, such as '[Mass, Edema]'\n"),
    ],
)
def test_a_scalar_in_place_of_a_list_is_answered_with_the_list(setting, step, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(f"etl: {{{setting}}}")
    with pytest.raises(SystemExit):
        load_settings("t", ["--config", str(tmp_path / "mine.yaml")])
    assert step in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "value"), [("image_folders", "[images_*/images, *]"), ("exclude", "[@a]")])
def test_a_list_that_yaml_cannot_read_is_answered_with_one_that_it_can(setting, value, capsys):
    with pytest.raises(SystemExit):
        load_settings("t", [f"--etl.{setting}", value])
    (step,) = shlex.split(capsys.readouterr().err.split("such as ")[1].splitlines()[0])
    words = value[1:-1].split(", ")
    assert getattr(load_settings("t", [f"--etl.{setting}", step]).etl, setting) == words


def test_databricks_names_its_models_and_experiments_differently():
    inference, training = Inference(registered_model="main.chest.chexscale"), Training(experiment="/Users/you/chest")
    Settings(tracking_server="databricks://PROFILE", inference=inference, training=training)
    with pytest.raises(InputError, match=r"registered_model is 'chexscale', expected CATALOG\.SCHEMA\.NAME"):
        Settings(tracking_server="databricks", training=training)
    with pytest.raises(InputError, match="experiment is 'chexscale', expected a path"):
        Settings(tracking_server="databricks", inference=inference)
