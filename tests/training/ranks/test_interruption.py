"""When ranks meet; a made-up rank stands for the others."""

import os
import signal

import pytest

from training.ranks import interruption
from training.ranks.interruption import Interruption


class Ranks:
    """This rank, and another one that reports the same except for `terminated`."""

    def __init__(self):
        self.met, self.other_terminated = 0, False

    def gather(self, value):
        self.met += 1
        return [value, (self.other_terminated, *value[1:])]


@pytest.fixture
def ranks():
    before = signal.getsignal(signal.SIGTERM)
    yield Ranks()
    signal.signal(signal.SIGTERM, before)


def test_a_save_comes_after_every_so_many_steps(ranks):
    watch = Interruption(ranks, 3)
    assert [watch.after_step() for _ in range(7)] == ["", "", "save", "", "", "save", ""]


def test_fast_steps_seldom_meet(ranks):
    watch = Interruption(ranks, 0)
    assert {watch.after_step() for _ in range(500)} == {""}
    assert ranks.met < 10


def test_a_save_comes_after_some_time(ranks, monkeypatch):
    monkeypatch.setattr(interruption, "SAVE_EVERY_S", -1)
    monkeypatch.setattr(interruption, "NOTICE_WITHIN_S", 0)
    assert Interruption(ranks, 0).after_step() == "save"


@pytest.mark.parametrize("own", [True, False])
def test_all_ranks_stop_when_one_gets_sigterm(ranks, own):
    watch = Interruption(ranks, 1)
    assert watch.after_step() == "save"
    if own:
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        ranks.other_terminated = True
    assert watch.after_step() == "stop"


def test_afterwards_sigterm_ends_the_process_again(ranks):
    watch = Interruption(ranks, 1)
    ranks.gather = lambda value: [value]
    assert not watch.close()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
