"""Progress of long work, with a clock of the tests; what runs into a file is tested with the commands."""

import io
import re

import pytest

from conf import progress
from conf.progress import Progress, is_terminal, track


class Clock:
    """Seconds that pass only if a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "monotonic", clock)
    return clock


def work(clock: Clock, total: int, per_s: int, until: int | None = None, **settings) -> None:
    """`total` steps at `per_s` steps a second, four updates a second; stops at `until`."""
    with Progress("images to shards", total, **settings) as bar:
        for _ in range((until or total) * 4 // per_s):
            clock.now += 0.25
            bar.update(per_s // 4)


def test_a_log_gets_a_line_every_half_minute_and_one_at_the_end(clock, capfd):
    work(clock, total=18_000, per_s=180)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "images to shards: 5,400 of 18,000, 180/s, 70 s left",
        "images to shards: 10,800 of 18,000, 180/s, 40 s left",
        "images to shards: 16,200 of 18,000, 180/s, 10 s left",
        "images to shards: 18,000 of 18,000 in 100 s, 180/s",
    ]


def test_hours_of_work_say_hours(clock, capfd):
    work(clock, total=112_120, per_s=12, until=480)
    first, second = capfd.readouterr().err.splitlines()
    assert first == "images to shards: 360 of 112,120, 12/s, 2 h 35 min left"
    assert second == "images to shards: 480 of 112,120, stopped after 40 s"


def test_short_work_gets_one_line(clock, capfd):
    work(clock, total=300, per_s=100)
    assert capfd.readouterr().err == "images to shards: 300 of 300 in 3.0 s, 100/s\n"


def test_work_whose_end_is_said_by_others_gets_no_line_for_it(clock, capfd):
    work(clock, total=300, per_s=100, end=False)
    assert capfd.readouterr().err == ""
    work(clock, total=4000, per_s=100, end=False)
    assert capfd.readouterr().err.count("\n") == 1


def test_a_resumed_training_counts_only_its_own_steps_as_speed(clock, capfd):
    with Progress("training", 10_000, done=9000) as bar:
        clock.now += 30
        bar.update(300)
    assert capfd.readouterr().err.splitlines()[0] == "training: 9,300 of 10,000, 10/s, 70 s left"


def test_work_that_does_not_move_says_so_too(clock, capfd):
    with Progress("images to shards", 10) as bar:
        for _ in range(130):
            clock.now += 0.5
            bar.update(0)
    assert capfd.readouterr().err.splitlines() == [
        "images to shards: 0 of 10 after 30 s",
        "images to shards: 0 of 10 after 60 s",
    ]


def test_slow_steps_have_a_rate_and_an_update_of_many_minutes_is_one_line(clock, capfd):
    with Progress("ranking layers", 128) as bar:
        clock.now += 600
        bar.update(1)
    assert capfd.readouterr().err.splitlines() == [
        "ranking layers: 1 of 128, 0.0017/s, 21 h 10 min left",
        "ranking layers: 1 of 128, stopped after 10 min",
    ]


def test_an_error_before_the_first_step_is_not_preceded_by_a_line(clock, capfd):
    with pytest.raises(OSError, match="full"), Progress("images to shards", 10):
        raise OSError("full")
    assert capfd.readouterr().err == ""


def test_hidden_progress_says_nothing_but_writes_lines(clock, capfd):
    with Progress("training", 100, shown=False) as bar:
        clock.now += 100
        bar.update(50)
        bar.write("epoch 1/1: fine")
    assert capfd.readouterr() == ("epoch 1/1: fine\n", "")


def test_items_pass_through_while_they_are_counted(clock, capfd):
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    assert re.fullmatch(r"letters: 3 of 3 in 0\.0 s\n", capfd.readouterr().err)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "terminal"),
    [
        (Terminal(), {"TERM": "xterm-256color"}, True),
        (Terminal(), {}, True),
        (Terminal(), {"CI": "false"}, True),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "xterm", "CI": "true"}, False),
        (Terminal(), {"CI": "1"}, False),
        (None, {}, False),
    ],
)
def test_only_a_terminal_that_can_redraw_gets_a_bar(stream, environ, terminal):
    assert is_terminal(stream, environ) == terminal


def test_a_terminal_gets_a_bar_that_redraws_itself(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("training", 100) as bar:
        bar.update(100)
    assert "\rtraining: 100%|" in screen.getvalue()
    assert " of " not in screen.getvalue()
