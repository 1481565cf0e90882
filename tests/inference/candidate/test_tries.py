"""Which ways of quantising are tried, on toy ways with a clock of the tests."""

from collections.abc import Iterator
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.candidate import tries
from inference.candidate.gate import Decision
from inference.candidate.making import time_limit
from inference.candidate.making.time_limit import TimeIsUp, TimeLimit
from inference.candidate.tries import Judged, Made, NoUse, Tries, Way, try_ways

PASSES = Decision(True, ["all is well"], None, {}, [], [])
WHY = "mean AUROC is 0.503, but its interval reaches down to 0.4, and chance is 0.5"
AT_CHANCE = Decision(False, [WHY], None, {"Mass": None}, [], [])
COSTS = Decision(False, ["Mass: AUROC falls by 0.1"], None, {"Mass": None}, [], [], quantisation_costs=True)


class Clock:
    """Seconds that pass only if a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module", autouse=True)
def clock() -> Iterator[Clock]:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for module in (tries, time_limit):
            patch.setattr(module, "monotonic", clock)
        yield clock


# name of a decision, overrun, seconds of each step of making it and of judging it
outcome = st.tuples(st.sampled_from([PASSES, COSTS, AT_CHANCE]), st.floats(-1, 1), st.floats(1, 600), st.floats(1, 600))
STEPS = 3


def run(outcomes, at_best: Decision, max_minutes: float, clock: Clock) -> tuple[Tries, list[str]]:
    """Ways 1, 2, ... with these outcomes; each asks for the time before each of its steps."""

    def work(limit: TimeLimit, seconds: float) -> None:
        for _ in range(STEPS):
            limit.check("this")
            clock.now += seconds

    def make(number: int):
        def made(limit, title, best) -> Made:
            assert title == f"INT8, way {number + 1} of {len(outcomes)}"
            assert (best is None) == (number == 0)
            work(limit, outcomes[number][2])
            return Made(number)

        return made

    def judge(number: int, limit: TimeLimit, title: str) -> Judged:
        work(limit, outcomes[number][3])
        return Judged(None, outcomes[number][0], outcomes[number][1])

    said = []
    ways = [Way(f"way {number + 1}", make(number)) for number in range(len(outcomes))]
    return try_ways(ways, judge, at_best, max_minutes, said.append), said


def as_before(outcomes) -> int:
    """How many ways are tried without any limit: until one passes, or fails for something else."""
    return next((n for n, (decision, *_) in enumerate(outcomes, 1) if decision is not COSTS), len(outcomes))


@given(st.lists(outcome, min_size=1, max_size=4))
def test_if_fp32_fails_no_further_way_is_tried(clock, outcomes):
    done, said = run(outcomes, AT_CHANCE, 0, clock)
    assert [one.made.graph for one in done.all] == [0]
    assert done.best.judged.decision is outcomes[0][0]
    if len(outcomes) > 1:
        assert WHY in said[0]
        assert "train longer or on more images" in said[0]
        assert done.ended == said[0]
    assert not done.out_of_time


@given(st.lists(outcome, min_size=1, max_size=4))
def test_if_fp32_passes_and_there_is_time_the_verdict_is_that_of_all_ways(clock, outcomes):
    done, said = run(outcomes, PASSES, 0, clock)
    assert [one.made.graph for one in done.all] == list(range(as_before(outcomes)))
    assert done.best.judged.decision.passed == any(one.judged.decision.passed for one in done.all)
    assert (done.ended, done.out_of_time, len(said)) == ("", False, len(done.all))


@given(st.lists(outcome, min_size=1, max_size=4), st.floats(0.1, 100))
def test_the_limit_bounds_all_ways_after_the_first_and_the_best_is_judged(clock, outcomes, max_minutes):
    started = clock.now
    done, said = run(outcomes, PASSES, max_minutes, clock)
    first = STEPS * (outcomes[0][2] + outcomes[0][3])
    # One step that began in time may end after it.
    assert clock.now - started <= max(first, 60 * max_minutes + 600) + 1e-6
    assert done.out_of_time == (len(done.all) < as_before(outcomes))
    worst = min(one.judged.overrun for one in done.all)
    assert done.best.judged.decision.passed or done.best.judged.overrun == worst
    if done.out_of_time:
        assert "raise inference.max_minutes" in said[-1]
        assert f"way {len(done.all) + 1} was not tried" in said[-1]


def test_a_way_that_cannot_end_in_time_is_not_begun(clock):
    outcomes = [(COSTS, 0.1, 10, 20), (PASSES, 0, 10, 20)]
    started = clock.now
    done, said = run(outcomes, PASSES, 2.5, clock)
    assert clock.now == started + 90
    assert done.ended == said[-1]
    assert said[-1] == (
        "way 2 was not tried: way 2, way 2, would take about 90 s, and 60 s are left; all ways together may take "
        "2.5 min, raise inference.max_minutes for more"
    )


def test_a_way_of_no_use_ends_the_tries_without_a_word_of_time(clock):
    def of_no_use(*_) -> Made:
        raise NoUse("nothing would change")

    ways = [Way("first", lambda *_: Made("graph")), Way("second", of_no_use)]
    said = []
    done = try_ways(ways, lambda *_: Judged(None, COSTS, inf), PASSES, 60, said.append)
    assert (len(done.all), done.out_of_time) == (1, False)
    assert said[-1] == done.ended == "second was not tried: nothing would change"


@pytest.mark.parametrize(("decision", "out_of_time"), [(PASSES, False), (COSTS, True)])
def test_a_way_that_was_cut_short_is_judged_and_says_so_unless_it_passes(decision, out_of_time):
    said = []
    ways = [Way("first", lambda *_: Made("a")), Way("second", lambda *_: Made("b", "ranking took too long"))]
    judged = {"a": Judged(None, COSTS, 0.2), "b": Judged(None, decision, 0.1)}
    done = try_ways(ways, lambda graph, *_: judged[graph], PASSES, 7, said.append)
    assert (done.best.made.graph, done.out_of_time) == ("b", out_of_time)
    assert ("second was not tried to its end: ranking took too long" in said[-1]) == out_of_time


def test_no_limit_never_ends(clock):
    limit = TimeLimit.after(0)
    clock.now += 1e9
    limit.check("anything", 1e9)
    limit.earlier(1e9).check("anything")


def test_work_that_does_not_fit_is_refused_before_it_starts(clock):
    limit = TimeLimit.after(1)
    limit.check("it", 59)
    with pytest.raises(TimeIsUp, match="it would take about 61 s, and 60 s are left"):
        limit.check("it", 61)
    clock.now += 60
    with pytest.raises(TimeIsUp, match="it did not end in time"):
        limit.check("it")
