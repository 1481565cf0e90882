"""What a training does about an earlier one in its workspace: it resumes it, leaves it, or begins anew."""

from dataclasses import asdict

from conf.arguments import Resume, with_same_settings
from conf.errors import InputError
from training.loop.task import Task
from training.network.checkpoint import BEST, LAST, Checkpoint, State

# Settings that change nothing in what is learned, or not while images per step and streams stay the same.
FREE = (
    *("cache_dir", "cache_gb", "checkpoint_steps", "tensorboard"),
    *("device", "threads", "bind_cores", "accumulation", "streams"),
)
# Settings whose effect is compared in place of them when a training resumes.
COMPARED_AS_PLAN = ("batch_size", "delta_version")


def look_back(task: Task, resume: Resume) -> tuple[bool, State | None]:
    """Whether this training has finished before, and the state from which it resumes; None begins it.

    Raises InputError if it is to resume and the saved state cannot be read, or is of another training.
    """
    best = task.workspace.checkpoints / BEST
    if resume == Resume.NO:
        return False, None
    if resume == Resume.YES or (task.workspace.checkpoints / LAST).exists():
        return False, read_state(task)
    if not has_finished(task):
        return False, None
    next_step = with_same_settings("python inference/register.py")
    print(f"This training has finished: {best}. Leave out --resume to train again.\nNext: {next_step}", flush=True)
    return True, None


def has_finished(task: Task) -> bool:
    """Whether the workspace has the checkpoint of a training of these settings on this table that ended well."""
    best = task.workspace.checkpoints / BEST
    if not (best.exists() and task.workspace.has_store):
        return False
    checkpoint = Checkpoint.load(best)
    if _changes(task, checkpoint, checkpoint.settings["training"]):
        return False
    # Imported here, because mlflow takes seconds to import.
    from training.record.store import status_of

    return status_of(task.workspace, checkpoint.run_id) == "FINISHED"


def read_state(task: Task) -> State:
    """The state of the interrupted training. Raises InputError if there is none, or if it was another training."""
    state = State.load(task.workspace.checkpoints / LAST)
    changes = _changes(task, state, state.settings)
    if changes:
        raise InputError(
            f"the interrupted training was another one ({'; '.join(changes)}): give the same settings "
            "(training.batch_size times ranks are the images of a step; training.streams and training.delta_version "
            "bring back streams and table), choose another workspace, or leave out --resume, which begins anew and "
            "discards the saved state"
        )
    return state


def _changes(task: Task, saved: Checkpoint | State, settings: dict) -> list[str]:
    """The differences from the training that saved this, such as `epochs was 5, is 6`.

    settings: the `training` section of that training.
    """
    was = {**settings, **saved.plan, "table": (saved.delta_table_id, saved.delta_version)}
    # A checkpoint of an earlier version has no plan, so its settings are compared instead.
    free, plan = ((*FREE, *COMPARED_AS_PLAN), task.plan.describe()) if saved.plan else (FREE, {})
    now = asdict(task.settings.training) | plan | {"table": (task.card.delta_table_id, task.card.delta_version)}
    return changes_between(was, now, free)


def changes_between(was: dict, now: dict, free: tuple[str, ...] = FREE) -> list[str]:
    """The differences of a training from an earlier one, such as `epochs was 5, is 6`. free: settings that may differ.

    was, now: their `training` sections, and what else is to be equal.
    """
    # A resumed training keeps the precision that it began with: see settle_precision.
    free = (*free, *(["precision"] if now["precision"] == "auto" else []))
    return [f"{key} was {was.get(key)}, is {now[key]}" for key in now if key not in free and was.get(key) != now[key]]
