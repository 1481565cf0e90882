import pytest
import torch

from conf.settings import Training
from training.loop.schedule import Schedule, build_optimizer, peak_learning_rate


def rates(losses: list[float] = (), steps_per_epoch: int = 4, **settings) -> list[float]:
    """Learning rate of each step of as many epochs as there are validation losses."""
    training = Training(epochs=max(1, len(losses)), learning_rate=0.1, **settings)
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], training, training.learning_rate)
    schedule, seen = Schedule(optimizer, training, steps_per_epoch), []
    for loss in losses:
        for _ in range(steps_per_epoch):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(loss)
    return seen


def test_the_plateau_drops_the_rate_to_a_tenth_and_again():
    seen = rates([3, 2, 2, 2, 2, 2, 2], schedule="plateau", plateau_patience=1)
    assert seen[::4] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("schedule", ["cosine", "constant", "plateau"])
def test_warm_up_rises_to_the_full_rate(schedule):
    seen = rates([1, 1, 1], schedule=schedule, warmup_epochs=1)
    assert seen[0] == pytest.approx(0.001)
    assert seen[:5] == sorted(seen[:5])
    assert seen[4] == pytest.approx(0.1)


def test_a_plateau_waits_for_the_end_of_the_warm_up():
    seen = rates([1, 1, 1, 1, 1, 1], schedule="plateau", warmup_epochs=2.5, plateau_patience=0)
    assert seen[12] == pytest.approx(0.1)
    assert seen[-1] < 0.05


def test_cosine_falls_to_almost_nothing():
    seen = rates([1] * 10, schedule="cosine")
    assert seen[0] == pytest.approx(0.1)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 0.001
    assert seen[20] == pytest.approx(0.05)


def test_a_schedule_resumes_from_its_state():
    training = Training(epochs=3, learning_rate=0.1, schedule="plateau", plateau_patience=0, warmup_epochs=0.5)
    whole = None
    for stop in (None, 5):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimizer = build_optimizer([parameter], training, 0.1)
        schedule, seen = Schedule(optimizer, training, 4), []
        for step in range(12):
            if step == stop:
                states = optimizer.state_dict(), schedule.state_dict()
                optimizer = build_optimizer([parameter], training, 0.1)
                schedule = Schedule(optimizer, training, 4)
                optimizer.load_state_dict(states[0])
                schedule.load_state_dict(states[1])
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.after_step()
            if step % 4 == 3:
                schedule.after_epoch(1.0)
        whole = whole or seen
    assert seen == whole


def test_the_linear_scaling_rule():
    assert peak_learning_rate(Training(learning_rate=0.1), 512) == 0.1
    assert peak_learning_rate(Training(learning_rate=0.1, reference_batch=256), 512) == pytest.approx(0.2)
