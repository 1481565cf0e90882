"""Whether a saved state is one of this very training: the only one that may go on from it."""

from dataclasses import asdict

from conf.errors import InputError
from conf.settings import Settings
from conf.workspace import Workspace
from etl.contract.schema import Card
from training.network.checkpoint import LAST, State
from training.ranks.collectives import Collectives
from training.reading.plan import Plan

# Settings that a resumed training may change; images per step and streams stand in for the last three.
FREE = ("resume", "checkpoint_steps", "device", "threads", "accumulation", "batch_size", "streams", "delta_version")


def load_state(settings: Settings, ranks: Collectives, card: Card, plan: Plan) -> State:
    """The interrupted training's state, from rank 0's disk. Raises InputError where this training is another one."""
    state = ranks.broadcast(read_state(settings, card, plan) if ranks.topology.is_main else None)
    if isinstance(state, InputError):
        raise state
    return state


def read_state(settings: Settings, card: Card, plan: Plan) -> State | InputError:
    """The state, or what is wrong with it: for all ranks to hear."""
    try:
        state = State.load(Workspace.at(settings.workspace).checkpoints / LAST)
        was = {**state.settings, **state.plan, "table": (state.delta_table_id, state.delta_version)}
        now = {**asdict(settings.training), **plan.describe(), "table": (card.delta_table_id, card.delta_version)}
        changed = [key for key in now if key not in FREE and was.get(key) != now[key]]
        if changed:
            other = "; ".join(f"{key} was {was.get(key)}, is {now[key]}" for key in changed)
            raise InputError(
                f"the interrupted training was another one ({other}): give the same settings (training.streams, with "
                "training.batch_size times ranks, and training.delta_version bring back the last three), or train from "
                "the start, without --training.resume"
            )
        return state
    except InputError as error:
        return error
