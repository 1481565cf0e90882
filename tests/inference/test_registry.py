import re
import runpy
import sys
from pathlib import Path

import pytest

from conf.workspace import Workspace
from inference.registry import Move, before_present, champion_version, history
from tests.inference.service import toy

INFERENCE = Path(__file__).parents[2] / "inference"


@pytest.fixture
def command(new_store, tmp_path, monkeypatch, capsys):
    """Runs an entry file on a registry with three versions: (exit code, standard output, standard error)."""
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    for _ in range(3):
        toy.register(workspace)

    def run(name: str, *options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [name, f"--workspace={workspace.root}", *options])
        try:
            runpy.run_path(str(INFERENCE / name), run_name="__main__")
        except SystemExit as end:
            return (end.code, *capsys.readouterr())
        return (0, *capsys.readouterr())

    run.workspace = workspace
    return run


def test_versions_are_promoted_and_rolled_back_by_one_command_each_and_it_is_recorded(command):
    code, said, _ = command("promote.py", "--inference.version=1", "--inference.why=a better recall")
    assert (code, champion_version(command.workspace, toy.NAME)) == (0, 1)
    assert "version 1 now, before it was version 3" in said
    for version in (3, 2):
        code, said, _ = command("rollback.py", "--inference.why=too many calls")
        assert (code, champion_version(command.workspace, toy.NAME)) == (0, version)
        assert f"version {version} again" in said
    made = [(move.version, move.replaced, move.why) for move in history(command.workspace, toy.NAME)][3:]
    assert made == [
        (1, 3, "a better recall"),
        (3, 1, "rollback from version 1: too many calls"),
        (2, 3, "rollback from version 3: too many calls"),
    ]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("promote.py", ("--inference.version=9",), "has no version 9"),
        ("promote.py", ("--inference.version=3",), "version 3 is the champion already"),
        ("promote.py", ("--inference.registered_model=other",), "no version of other: run .*register.py"),
        ("rollback.py", ("--inference.registered_model=other",), "no registered model other: run .*register.py"),
    ],
)
def test_what_cannot_be_moved_is_told(name, options, message, command):
    code, _, error = command(name, *options)
    assert code == 2
    assert re.search(message, error)
    assert champion_version(command.workspace, toy.NAME) == 3


def moves(*steps: int) -> list[Move]:
    """Promotions of these versions; a negative one is the rollback to it."""
    return [Move(abs(step), None, "", "", "", is_rollback=step < 0) for step in steps]


def test_a_rollback_goes_to_the_champion_before():
    assert before_present(moves(1, 2, 5), 5) == 2


def test_a_second_rollback_goes_further_back_and_not_to_what_was_left():
    assert before_present(moves(1, 2, 5, -2), 2) == 1
    assert before_present(moves(1, 2, 5, -2, -1), 1) is None


def test_a_promotion_after_a_rollback_has_the_one_before_it():
    assert before_present(moves(1, 2, -1, 3), 3) == 1


def test_a_first_champion_or_none_has_nothing_before():
    assert before_present(moves(4), 4) is None
    assert before_present([], None) is None


def test_an_alias_that_was_moved_elsewhere_counts_as_the_present():
    assert before_present(moves(1, 2), 7) == 2
