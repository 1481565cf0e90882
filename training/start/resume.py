"""Whether a saved state is one of this very training: only that training may resume from it."""

from dataclasses import asdict

from conf.errors import InputError
from training.loop.task import Task
from training.network.checkpoint import LAST, State
from training.ranks.collectives import Collectives

# Settings that a resumed training may change; images per step and streams are compared in place of the last three.
FREE = (
    *("cache_dir", "cache_gb", "checkpoint_steps", "device", "threads", "bind_cores"),
    *("accumulation", "batch_size", "streams", "delta_version"),
)


def load_state(task: Task, ranks: Collectives) -> State:
    """The interrupted training's state, from rank 0's disk. Raises InputError on every rank if it is another one's."""
    state = ranks.broadcast(read_state(task) if ranks.topology.is_main else None)
    if isinstance(state, InputError):
        raise state
    return state


def read_state(task: Task) -> State | InputError:
    """The state, or what is wrong with it, so that rank 0 can send either to all ranks."""
    card = task.card
    try:
        state = State.load(task.workspace.checkpoints / LAST)
        was = {**state.settings, **state.plan, "table": (state.delta_table_id, state.delta_version)}
        now = asdict(task.settings.training) | task.plan.describe()
        now["table"] = (card.delta_table_id, card.delta_version)
        if now["precision"] == "auto":
            # A resumed training keeps the precision that it began with: see settle_precision.
            now["precision"] = was.get("precision", "auto")
        changed = [key for key in now if key not in FREE and was.get(key) != now[key]]
        if changed:
            other = "; ".join(f"{key} was {was.get(key)}, is {now[key]}" for key in changed)
            raise InputError(
                f"the interrupted training was another one ({other}): give the same settings (training.streams, with "
                "training.batch_size times ranks, and training.delta_version bring back the last three), or train from "
                "the start, without --resume"
            )
        return state
    except InputError as error:
        return error
