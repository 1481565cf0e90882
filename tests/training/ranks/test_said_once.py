"""Which rank says an error, and when; then the command itself under each launcher."""

import json
import os
import signal
import socket
import subprocess

import pytest

from conf.errors import InputError, run_command
from tests.training.commands import LAUNCHERS, PROJECT
from training.ranks import said_once as module
from training.ranks.said_once import RANK_0_SPEAKS_FIRST_S, RANKS_APART_S, LostRankError, said_once
from training.train import main

HERE = socket.gethostname()


def place(rank: int, local_rank: int = 0) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": "8", "LOCAL_RANK": str(local_rank), "LOCAL_WORLD_SIZE": "4"}


@pytest.fixture
def waited(monkeypatch) -> list[float]:
    """Seconds of each wait, none of which takes any time."""
    seconds: list[float] = []
    monkeypatch.setattr(module, "sleep", seconds.append)
    return seconds


def raised(error: Exception, environ: dict[str, str]) -> Exception:
    with pytest.raises(type(error)) as info, said_once(environ):
        raise error
    return info.value


@pytest.mark.parametrize("environ", [{}, place(0)])
def test_rank_0_speaks_at_once_and_as_it_does_alone(waited, environ):
    assert str(raised(InputError("no table"), environ)) == "no table"
    assert waited == []


@pytest.mark.parametrize(("rank", "local_rank"), [(4, 0), (5, 1), (3, 3)])
def test_another_rank_waits_longer_than_those_before_it_and_gives_its_name(waited, rank, local_rank):
    assert str(raised(InputError("no table"), place(rank, local_rank))) == f"rank {rank} on {HERE}: no table"
    assert waited == [RANK_0_SPEAKS_FIRST_S + RANKS_APART_S * local_rank]


def test_a_bug_keeps_its_traceback_and_gets_its_rank(waited):
    assert raised(KeyError("what"), place(3, 3)).__notes__ == [f"on rank 3 on {HERE}"]
    assert len(waited) == 1


@pytest.mark.parametrize(("rank", "waits"), [(0, 0), (1, 0), (2, 1)])
def test_a_lost_rank_is_reported_by_rank_0_or_if_that_is_the_lost_one_by_rank_1(waited, rank, waits):
    with pytest.raises(InputError, match="gone"), said_once(place(rank, rank)):
        raise LostRankError("gone")
    assert len(waited) == waits


@pytest.mark.parametrize(("error", "code"), [(InputError("no table"), 2), (KeyError("bug"), 1)])
def test_a_rank_that_the_launcher_ends_meanwhile_says_nothing(monkeypatch, capfd, error, code):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(module, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    raised(error, place(1))
    assert ended == [code]
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGTERM) == before


def test_torchruns_summary_points_to_the_message(waited, tmp_path):
    file = tmp_path / "error.json"
    raised(InputError("no table"), {**place(0), "TORCHELASTIC_ERROR_FILE": str(file)})
    message = json.loads(file.read_text())["message"]
    assert message["extraInfo"]["py_callstack"] == message["message"] == "see its message above this summary"
    assert message["extraInfo"]["timestamp"].isdigit()


def command(monkeypatch, capfd, environ: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command as one rank."""
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    return ended.value.code, *capfd.readouterr()


def test_a_missing_gpu_that_no_other_rank_reports_is_reported_with_its_rank(waited, monkeypatch, capfd):
    code, _, err = command(monkeypatch, capfd, place(1, 1), "--training.device", "cuda")
    assert (code, len(waited)) == (2, 1)
    assert err.startswith(f"error: rank 1 on {HERE}: training.device is cuda, but torch sees no GPU")


def test_a_mistyped_setting_of_another_rank_is_held_back_first(waited, monkeypatch, capfd):
    monkeypatch.setattr(module, "sleep", lambda _: waited.append(capfd.readouterr()))
    code, out, err = command(monkeypatch, capfd, place(1, 1), "--training.epoch", "3")
    assert (code, out) == (2, "")
    assert waited == [("", "")]
    assert err.startswith(f"error: rank 1 on {HERE}: unrecognized arguments: --training.epoch 3; did you mean")
    assert err.count("error: ") == 1


def test_rank_0_reports_a_mistyped_setting_as_it_does_alone(waited, monkeypatch, capfd):
    code, _, err = command(monkeypatch, capfd, place(0), "--training.epoch", "3")
    assert (code, waited) == (2, [])
    assert "\nerror: unrecognized arguments: --training.epoch 3; did you mean" in err


def test_only_rank_0_shows_the_help_and_notes(waited, monkeypatch, capfd):
    assert command(monkeypatch, capfd, place(1, 1), "--help") == (0, "", "")
    code, _, err = command(monkeypatch, capfd, place(1, 1), "--etl.rebuild", "true", "--workspace", "/dev/null/no")
    assert (code, "note: " in err) == (2, False)
    code, out, _ = command(monkeypatch, capfd, place(0), "--help")
    assert (code, out.startswith("usage: ")) == (0, True)


@pytest.mark.slow
def test_torchrun_shows_an_error_of_all_ranks_once():
    """test_train.py looks at one under horovodrun."""
    words = [*map(str, LAUNCHERS["torchrun"]), "training/train.py", "--workspace", "/nowhere/at/all"]
    finished = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    said = finished.stdout + finished.stderr
    assert finished.returncode != 0
    assert said.count("error: ") == 1, said
    assert "rank 1 on" not in said
    assert "To enable traceback see" not in said
