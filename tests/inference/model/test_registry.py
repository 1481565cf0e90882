import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import InputError
from conf.workspace import Workspace
from inference.model import registry
from inference.model.registry import Move, before_present, champion_version, fetch_model, history, promote
from tests.in_process import Ended, run_here
from tests.inference.service import toy

INFERENCE = Path(__file__).parents[3] / "inference"


@pytest.fixture
def command(new_store, tmp_path):
    """Runs an entry file on a registry with three versions: (exit code, standard output, standard error)."""
    workspace = Workspace.at(str(tmp_path / "registry"))
    new_store(workspace)
    for _ in range(3):
        toy.register(workspace)

    def run(name: str, *options: str) -> Ended:
        return run_here(INFERENCE / name, f"--workspace={workspace.root}", *options)

    run.workspace = workspace
    return run


def test_one_command_promotes_and_one_rolls_back_and_both_are_recorded(command):
    code, said, _ = command("promote.py", "1", "--why=a better recall")
    assert (code, champion_version(command.workspace, toy.NAME)) == (0, 1)
    assert "now version 1; before, it was version 3" in said
    for version in (3, 2):
        code, said, _ = command("rollback.py", "--why=too many calls")
        assert (code, champion_version(command.workspace, toy.NAME)) == (0, version)
        assert f"version {version} again" in said
    made = [(move.version, move.replaced, move.why) for move in history(command.workspace, toy.NAME)][3:]
    assert made == [
        (1, 3, "a better recall"),
        (3, 1, "rollback from version 1: too many calls"),
        (2, 3, "rollback from version 3: too many calls"),
    ]


@pytest.mark.parametrize("words", [("promote.py", "1"), ("rollback.py",)])
def test_an_empty_reason_is_refused(command, words):
    code, _, said = command(*words, "--why= ")
    assert (code, champion_version(command.workspace, toy.NAME)) == (2, 3)
    assert "--why is empty" in said


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("promote.py", ("9",), "has no version 9"),
        ("promote.py", ("3",), "version 3 is already the champion"),
        ("promote.py", ("--inference.registered_model=other",), "no version of other: run .*register.py"),
        ("rollback.py", ("--inference.registered_model=other",), "no registered model other: run .*register.py"),
    ],
)
def test_an_impossible_move_is_an_error_and_moves_nothing(name, options, message, command):
    code, _, error = command(name, *options)
    assert code == 2
    assert re.search(message, error)
    assert champion_version(command.workspace, toy.NAME) == 3


def test_two_promotions_at_once_are_both_recorded(command, monkeypatch):
    ours, meanwhile = registry.champion_version, iter([1])

    def look(workspace, name):
        """Has another process move the alias between the look at the champion and our own move."""
        present = ours(workspace, name)
        for number in meanwhile:
            promote(workspace, name, number, "the other one")
        return present

    monkeypatch.setattr(registry, "champion_version", look)
    promote(command.workspace, toy.NAME, 2, "this one")
    assert [move.why for move in history(command.workspace, toy.NAME)][-2:] == ["the other one", "this one"]


def test_a_champion_that_the_version_was_not_compared_with_is_not_replaced(command):
    number, _ = toy.register(command.workspace)
    promote(command.workspace, toy.NAME, 1, "by hand")
    with pytest.raises(InputError, match=f"is now version 1, but version 2 was compared with version {number}"):
        promote(command.workspace, toy.NAME, 2, "passed the gate", compared=number)
    assert champion_version(command.workspace, toy.NAME) == 1
    assert promote(command.workspace, toy.NAME, 2, "passed the gate", compared=1).replaced == 1


@pytest.mark.parametrize(
    ("compared", "champion", "message"),
    [
        (3, None, "chexscale has no champion any more, but version 2 was compared with version 3"),
        (0, 3, "the champion of chexscale is now version 3, but there was none when version 2 was measured"),
    ],
)
def test_a_champion_that_came_or_went_meanwhile_is_named_in_words(compared, champion, message, command):
    if champion is None:
        registry.mlflow.MlflowClient().delete_registered_model_alias(toy.NAME, "champion")
    with pytest.raises(InputError, match=message) as raised:
        promote(command.workspace, toy.NAME, 2, "passed the gate", compared=compared)
    assert "None" not in str(raised.value)
    assert champion_version(command.workspace, toy.NAME) == champion


def test_a_rollback_after_the_alias_was_removed_says_so_in_words(command):
    registry.mlflow.MlflowClient().delete_registered_model_alias(toy.NAME, "champion")
    code, said, _ = command("rollback.py")
    assert (code, champion_version(command.workspace, toy.NAME)) == (0, 2)
    assert "version 2 again; before, there was no champion" in said
    assert "None" not in said + history(command.workspace, toy.NAME)[-1].why


def test_a_rollback_of_nothing_says_so_in_words(command):
    client = registry.mlflow.MlflowClient()
    client.create_registered_model("fresh")
    code, _, error = command("rollback.py", "--inference.registered_model=fresh")
    assert (code, "None" in error) == (2, False)
    assert "fresh has no champion and had none before: promote one with" in error


@pytest.mark.parametrize("sign", ["薬", '"', "a\n", "\x01"])
def test_a_long_reason_is_cut_to_what_a_tag_of_unity_catalog_holds(command, sign):
    promote(command.workspace, toy.NAME, 1, sign * 5000)
    tags = client_tags()
    assert max(map(len, tags.values())) <= 1000
    assert history(command.workspace, toy.NAME)[-1].why.startswith(sign * 100)


def client_tags() -> dict[str, str]:
    return mlflow.MlflowClient().get_registered_model(toy.NAME).tags


def test_a_move_is_a_tag_that_unity_catalog_allows_and_follows_those_of_older_releases(command):
    client = mlflow.MlflowClient()
    before = client_tags()
    old = f"champion_history.{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H.%M.%S.%f}-0a1b2c3d"
    client.set_registered_model_tag(toy.NAME, old, json.dumps(asdict(Move(3, 2, "", "", "an older release"))))
    promote(command.workspace, toy.NAME, 1, "薬" * 5000)
    assert [move.why[:2] for move in history(command.workspace, toy.NAME)][-2:] == ["an", "薬薬"]
    after = client_tags()
    ((name, value),) = after.items() - {**before, old: after[old]}.items()
    assert not set(".,-=/: ") & set(name) and len(value) <= 1000


def test_the_order_of_moves_stays_if_another_hosts_clock_is_ahead(command, monkeypatch):
    class Ahead(registry.datetime):
        @classmethod
        def now(cls, zone):
            return datetime(2099, 1, 1, tzinfo=zone)

    with monkeypatch.context() as other_host:
        other_host.setattr(registry, "datetime", Ahead)
        promote(command.workspace, toy.NAME, 1, "ahead")
    promote(command.workspace, toy.NAME, 2, "then")
    promote(command.workspace, toy.NAME, 3, "last")
    assert [move.why for move in history(command.workspace, toy.NAME)][-3:] == ["ahead", "then", "last"]
    assert registry.rollback(command.workspace, toy.NAME, "back").version == 2


def test_a_long_reason_fits_into_the_registry(command):
    promote(command.workspace, toy.NAME, 1, "because " * 1000)
    assert history(command.workspace, toy.NAME)[-1].why.startswith("because because")


def test_missing_files_and_a_foreign_database_are_input_errors(command):
    shutil.rmtree(command.workspace.artifacts)
    with pytest.raises(InputError, match="the files of .* version 3, which belong in .*registry/.*, are missing"):
        fetch_model(command.workspace, toy.NAME, 3)
    other = Workspace.at(str(command.workspace.root.with_name("other")))
    other.root.mkdir()
    other.tracking_db.write_text("no database " * 100)
    with pytest.raises(InputError, match=r"the registry at .*mlflow.db cannot be read"):
        champion_version(other, toy.NAME)


@pytest.mark.parametrize("name", ["promote.py", "rollback.py"])
def test_a_mistyped_workspace_gets_no_registry(name, command, tmp_path):
    code, _, error = command(name, f"--workspace={tmp_path / 'mistyped'}", "--inference.version=3")
    assert (code, "no registered model" in error) == (2, True)
    assert not (tmp_path / "mistyped").exists()


def test_two_processes_fetch_a_version_of_a_server_once(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Pretend that a tracking server stores the files, so that they have to be fetched.
    database = f"sqlite:///{command.workspace.tracking_db}"
    served = Workspace(command.workspace.root, "http://server")
    monkeypatch.setattr(registry, "use_store", lambda _: registry.mlflow.set_tracking_uri(database))
    fetch, fetched = registry.mlflow.artifacts.download_artifacts, []

    def slowly(uri, dst_path):
        fetched.append(uri)
        time.sleep(0.5)
        return fetch(uri, dst_path=dst_path)

    monkeypatch.setattr(registry.mlflow.artifacts, "download_artifacts", slowly)
    with ThreadPoolExecutor(2) as threads:
        folders = list(threads.map(lambda _: fetch_model(served, toy.NAME, 3), range(2)))
    assert len(fetched) == 1
    assert folders[0] == folders[1]
    assert (folders[0] / "int8" / "model.xml").is_file()


def moves(*steps: int) -> list[Move]:
    """Promotions of these versions; a negative number is a rollback to that version."""
    before = [None, *map(abs, steps)]
    return [
        Move(abs(step), replaced, "", "", "", is_rollback=step < 0)
        for step, replaced in zip(steps, before, strict=False)
    ]


def test_a_rollback_goes_to_the_previous_champion():
    assert before_present(moves(1, 2, 5), 5) == 2


def test_a_second_rollback_goes_further_back_and_skips_versions_rolled_back():
    assert before_present(moves(1, 2, 5, -2), 2) == 1
    assert before_present(moves(1, 2, 5, -2, -1), 1) is None


def test_after_a_rollback_and_a_promotion_the_restored_version_comes_before():
    assert before_present(moves(1, 2, -1, 3), 3) == 1


def test_nothing_comes_before_the_first_champion():
    assert before_present(moves(4), 4) is None
    assert before_present([], None) is None


def test_an_alias_that_was_moved_by_hand_counts_as_the_present_champion():
    assert before_present(moves(1, 2), 7) == 2


def test_an_alias_that_was_moved_by_hand_between_two_moves_counts_too():
    # 3 is served, somebody moves the alias to 1, and 4 replaces it.
    assert before_present([*moves(1, 2, 3), Move(4, 1, "", "", "")], 4) == 1
    # 2 is served, somebody moves the alias to 7, and 7 is rolled back.
    back = Move(2, 7, "", "", "", is_rollback=True)
    assert before_present([*moves(1, 2), back], 2) == 1


def test_a_recorded_move_that_was_killed_before_it_happened_does_not_count():
    assert before_present(moves(1, 2, 3), 2) == 1


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8))
def test_rollbacks_undo_the_promotions_one_by_one(versions):
    line = [version for version, _ in groupby(versions)]
    made = moves(*line)
    for expected in [*line[-2::-1], None]:
        present = made[-1].version
        assert before_present(made, present) == expected
        if expected is not None:
            made.append(Move(expected, present, "", "", "", is_rollback=True))
