"""A scenario file that a setting or a study names is read as --config reads it, and its faults name the file."""

import pytest

from conf.arguments import DEMO_CONFIG
from conf.errors import InputError
from conf.scenario_file import read_scenario, write_scenario
from conf.settings import Columns, Settings


def read(folder, text: str) -> Settings:
    (folder / "mine.yaml").write_text(text)
    return read_scenario(str(folder / "mine.yaml"), "etl.sources")


def test_a_file_has_its_own_settings_and_the_defaults(tmp_path):
    settings = read(tmp_path, "etl:\n  format: csv\n  columns:\n    patient: person\n  views: [PA]\n")
    assert (settings.etl.format, settings.etl.columns, settings.etl.views) == ("csv", Columns(patient="person"), ["PA"])
    # Not the demo's.
    assert settings.etl.sizes_px == Settings().etl.sizes_px
    assert read_scenario(str(DEMO_CONFIG), "etl.sources").phantoms.num_images == 2000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("etl:\n  fromat: csv\n", r"mine.yaml:2: unknown setting etl.fromat; did you mean etl.format"),
        ("etl:\n  format: cvs\n", r"mine.yaml: etl.format is 'cvs', expected .*csv"),
        ("etl:\n  val_fraction: 2\n", r"mine.yaml: etl.val_fraction is 2.*share between 0 and 1"),
        ("etl:\n  views: PA\n", r"mine.yaml: etl.views is 'PA', expected a list"),
        ("", r"etl.sources .*mine.yaml has no settings: expected sections.*`epochs: 10`$"),
        ("a: [", r"etl.sources .*mine.yaml is no YAML file"),
    ],
)
def test_faults_of_the_file_name_it(tmp_path, text, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, text)


def test_a_missing_file_is_named_with_the_setting(tmp_path):
    with pytest.raises(InputError, match="etl.sources nih.yaml cannot be read.*give the scenario.*: etl.sources /"):
        read_scenario("nih.yaml", "etl.sources")


@pytest.mark.parametrize("scenario", sorted(DEMO_CONFIG.parent.glob("*.yaml")), ids=lambda path: path.name)
def test_a_scenario_that_was_written_is_read_as_it_was(tmp_path, scenario):
    words = ["--etl.views", "PA", "--workspace=runs/Größe: 1", "--etl.columns.split", "", "--training.epochs=3"]
    settings = read_scenario(str(scenario), "test", words)
    assert (settings.etl.views, settings.training.epochs) == (["PA"], 3)
    write_scenario(tmp_path / "written.yaml", settings)
    assert read_scenario(str(tmp_path / "written.yaml"), "test") == settings


def test_words_are_refused_as_those_of_a_command_line(tmp_path):
    for words, said in (
        (["--training.epoch=1"], "unrecognized"),
        (["--training.epochs", "x"], "training.epochs is 'x'"),
    ):
        with pytest.raises(InputError, match=said):
            read_scenario(str(DEMO_CONFIG), "test", words)
