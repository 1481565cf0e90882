"""Scenario files that say something else than their reader would take, each refused with the line."""

import pytest

from conf.arguments import add_switch, load_arguments, load_settings
from conf.errors import InputError
from conf.settings import Settings


@pytest.fixture
def file(tmp_path):
    def write(content: str | bytes) -> str:
        path = tmp_path / "mine.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no settings: expected sections"),
        ("- 1\n", "has no settings: expected sections"),
        ("# only a comment\n", "has no settings"),
        ("etl: 3\n", "mine.yaml:1: etl is a section"),
        ("workspace: w\ntraining:\n", "mine.yaml:2: training is a section"),
        ("etl:\n  columns: [a]\n", "mine.yaml:2: etl.columns is a section"),
        ("training: {epochs: }\n", "mine.yaml:1: training.epochs has no value"),
        ("training: {epochs: ~}\n", "training.epochs has no value"),
        ("training:\n  epochs: 1\n  epochs: 2\n", "mine.yaml:3: training.epochs is given twice"),
        ("etl: {seed: 010}\n", "mine.yaml:1: etl.seed is 010, which YAML takes for 8: write 10, or 8 if that is meant"),
        ("etl: {seed: 007}\n", "etl.seed is 007, which YAML takes for 7: write 7$"),
        ("etl: {columns: {patient: }}\n", "etl.columns.patient has no value: .*, or write '' if there is none"),
        (
            "etl: {columns: {image: ~}}\n",
            "etl.columns.image has no value: give one, or leave the line out for the d.*t$",
        ),
        ("etl: {seed: 1:30}\n", "mine.yaml:1: etl.seed is 1:30, which YAML takes for 90"),
        ("training: {experiment: 007}\n", "mine.yaml:1: training.experiment is 007, expected a text: put it in quotes"),
        ("a: &a {seed: 1}\netl:\n  <<: *a\n", "mine.yaml:3: etl.<< is a merge key, which is not read: write the"),
        ("etl: {seed: 1}\netl: {seed: 1}\n", "mine.yaml:2: etl is given twice"),
        ("etl.seed: 1\netl: {seed: 2}\n", "mine.yaml:2: etl.seed is given twice"),
        ("training:\n  epoch: 3\n", "unknown setting training.epoch; did you mean training.epochs"),
        ("ETL: {seed: 1}\n", r"unknown setting ETL; did you mean etl\?"),
        ("etl: {seed: !foo 3}\n", "mine.yaml:1: etl.seed has the tag !foo, which is not read: leave the tag out"),
        ("etl: {views: [!!python/name:os.x AP]}\n", "etl.views has the tag !!python/name:os.x, which is not read"),
        ("data: {x: 1}\n", "unknown setting data; known sections are workspace, .*etl, training"),
        ("training.epochs: 3\nversion: 4\n", "mine.yaml:2: version is no setting .* give VERSION on the command line"),
        ("all: true\n", "all is no setting but an argument of this command: give --all"),
        ("training: {epochs: 3\n", "is no YAML file in UTF-8"),
        (b"\xff\xfe", "is no YAML file in UTF-8"),
        ("etl: {seed: 1}\n---\netl: {seed: 2}\n", "is no YAML file"),
        ("? [a, b]\n: 1\n", "unknown setting"),
    ],
)
def test_a_file_that_would_be_read_as_something_else_is_refused(file, content, message):
    def add_own(parser) -> None:
        parser.add_argument("version", nargs="?", type=int)
        add_switch(parser, "--all", "everything")

    with pytest.raises(InputError, match=message):
        load_arguments("t", "", add_own, [f"--config={file(content)}"])


def test_all_faults_are_said_at_once(file):
    with pytest.raises(InputError) as refused:
        load_settings("t", ["--config", file("training:\n  resume: true\netl:\n  rebuild: true\n  sede: 3\n")])
    said = str(refused.value)
    assert "mine.yaml:2: unknown setting training.resume; it is now the argument --resume of training/train.py" in said
    assert "mine.yaml:4: unknown setting etl.rebuild; it is now the argument --rebuild" in said
    assert "mine.yaml:5: unknown setting etl.sede; did you mean etl.seed?" in said


@pytest.mark.parametrize(("path", "why"), [("nowhere.yaml", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, path, why):
    with pytest.raises(InputError, match=rf"{path} cannot be read \({why}.*\): check the path"):
        load_settings("t", ["--config", str(tmp_path / path)])


def test_the_printed_settings_are_a_scenario_with_the_same_settings(file, capsys):
    def add_own(parser) -> None:
        parser.add_argument("version", nargs="?", type=int)

    words = ["3", "--etl.seed", "7", "--etl.columns.findings", "[a, b]"]
    with pytest.raises(SystemExit) as stopped:
        # Few are shown by --help, and all are printed.
        load_arguments("t", "", add_own, [*words, "--print_config"], reads=("scoring",))
    assert not stopped.value.code
    settings, options = load_arguments("t", "", add_own, ["--config", file(capsys.readouterr().out)])
    assert settings == load_settings("t", words[1:]) and options.version is None
    assert isinstance(settings, Settings)
