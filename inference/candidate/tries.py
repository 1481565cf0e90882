"""Tries one way of quantising after the other, as long as that can change the gate's decision and there is time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from conf.progress import duration
from inference.candidate.gate import Decision, next_step
from inference.candidate.making.time_limit import NO_LIMIT, TimeIsUp, TimeLimit
from inference.candidate.measuring.evaluate import Scored
from inference.model.graphs import Graph


class NoUse(Exception):
    """A way would give a graph that was tried before; the message says why."""


@dataclass(frozen=True)
class Made:
    """What a way of quantising has made."""

    graph: Graph
    cut_short: str = ""
    """what the time did not suffice for, if the way stopped early"""


@dataclass(frozen=True)
class Judged:
    """An INT8 graph on the test split."""

    scored: Scored
    """its answers, and those of the other variants"""
    decision: Decision
    overrun: float
    """see gate.overrun"""


@dataclass(frozen=True)
class Way:
    """A way of quantising."""

    name: str
    make: Callable[[TimeLimit, str, "Try | None"], Made]
    """Takes a time limit, the beginning of its lines of progress, and the best try so far. Raises TimeIsUp and NoUse.
    """
    correct_biases: bool = False
    """see quantize.quantize"""


@dataclass(frozen=True)
class Try:
    """A way that was tried to its end."""

    way: Way
    made: Made
    judged: Judged
    seconds: float
    """for making the graph and judging it"""


@dataclass(frozen=True)
class Tries:
    """All tries, and how they ended."""

    all: list[Try]
    best: Try
    """one that passes; otherwise the one that exceeds its bounds least"""
    ended: str
    """why a way was not tried, or not tried to its end; empty if the gate needed no other way or there was none"""
    out_of_time: bool
    """whether that was for lack of time"""


def try_ways(
    ways: Sequence[Way],
    judge: Callable[[Graph, TimeLimit, str], Judged],
    at_best: Decision,
    max_minutes: float,
    say: Callable[[str], None],
) -> Tries:
    """Tries the ways in their order, and says of each how it was judged.

    A further way is tried only if the graph before was refused for what quantising costs, and only if the gate would
    pass a graph with exactly FP32's scores (at_best: that decision). The first way always runs to its end, because
    there must be an INT8 graph; the others end max_minutes from now (0: no limit).
    """
    ended, out_of_time = "", False
    if not at_best.passed and len(ways) > 1:
        ended = (
            f"only one way is tried, because the gate would refuse INT8 even with exactly FP32's scores: "
            f"{'; '.join(at_best.reasons)}; what may help: {next_step(at_best)}"
        )
        say(ended)
    limit, judging_s = TimeLimit.after(max_minutes), 0.0
    tries: list[Try] = []
    for number, way in enumerate(ways, 1):
        title, started = f"INT8, way {number} of {len(ways)}", monotonic()
        own = limit if tries else NO_LIMIT
        try:
            own.check(f"way {number}, {way.name},", tries[0].seconds if tries else 0)
            made = way.make(own.earlier(judging_s), title, _best(tries) if tries else None)
            finished = monotonic()
            judged = judge(made.graph, own, title)
        except (TimeIsUp, NoUse) as why:
            out_of_time = isinstance(why, TimeIsUp)
            left = "; ".join(f"{later.name} was not tried" for later in ways[number - 1 :])
            ended = f"{left}: {_lack_of_time(max_minutes, str(why)) if out_of_time else why}"
            say(ended)
            break
        seconds, judging_s = monotonic() - started, monotonic() - finished
        tries.append(Try(way, made, judged, seconds))
        say(f"{title}, {way.name}, {duration(seconds)}: {'; '.join(judged.decision.reasons)}")
        if made.cut_short and not judged.decision.passed:
            out_of_time = True
            ended = f"{way.name} was not tried to its end: {_lack_of_time(max_minutes, made.cut_short)}"
            say(ended)
        if judged.decision.passed or not judged.decision.quantisation_costs or not at_best.passed:
            break
    return Tries(tries, _best(tries), ended, out_of_time)


def _best(tries: list[Try]) -> Try:
    return min(tries, key=lambda one: (not one.judged.decision.passed, one.judged.overrun))


def _lack_of_time(max_minutes: float, why: str) -> str:
    return f"{why}; all ways together may take {max_minutes:g} min, raise inference.max_minutes for more"
