"""A training under `horovodrun --min-np` that loses a rank, and what it has to know to resume."""

import subprocess
from math import ceil

import mlflow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conf.arguments import Resume
from conf.errors import InputError
from conf.settings import Training
from conf.workspace import Workspace
from tests.training.commands import BIN, LAUNCHERS, PROJECT, finish, ranks_of, start, train_here, wait_for_epoch
from tests.training.toy_training import make_state
from training.network.checkpoint import BEST, LAST, Checkpoint
from training.ranks.elastic import begin_or_resume, repeats_itself, share_steps
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split
from training.record.store import use_store

# With BatchNorm frozen, the steps are the same on any number of ranks, up to float rounding.
CHANGES = {"epochs": 2, "freeze_batchnorm": True}
HOSTS = "#!/bin/sh\necho localhost:1\necho 127.0.0.1:1\n"


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 48), st.integers(1, 4))
def test_other_ranks_do_the_same_steps_in_no_more_memory(first_ranks, num_ranks, batch_size, accumulation):
    began = Training(batch_size=batch_size, streams=840, accumulation=accumulation)
    if batch_size * first_ranks % num_ranks:
        with pytest.raises(InputError, match=f"got {batch_size * first_ranks} / {num_ranks}"):
            share_steps(began, first_ranks, num_ranks)
        return
    shared = share_steps(began, first_ranks, num_ranks)
    split = Split("train", [], [8] * 840, 32)
    was, now = Plan(split, batch_size, first_ranks, 840), Plan(split, shared.batch_size, num_ranks, shared.streams)
    assert now.describe() == was.describe()
    assert ceil(shared.batch_size / shared.accumulation) <= ceil(batch_size / accumulation)


def test_the_streams_are_those_of_the_first_start():
    assert share_steps(Training(batch_size=8), 2, 1) == Training(batch_size=16, streams=2, accumulation=2)
    assert share_steps(Training(batch_size=8), 2, 2) == Training(batch_size=8, streams=2)


def test_only_a_state_of_this_very_training_is_resumed(tmp_path, capsys):
    last = Workspace.at(str(tmp_path)).checkpoints / LAST

    def begin(resume: Resume, *known) -> tuple[int, int, Resume]:
        return begin_or_resume(resume, last.stat().st_mtime_ns, *known)

    two, one = (Topology("horovodrun", 0, size, 0, 1, "cpu") for size in (2, 1))
    make_state().save(last)
    _, others, resume = begin(Resume.NO, 0, 0, two)
    assert (others > 0, resume) == (True, Resume.NO), "another training's"
    assert begin(Resume.NO, 2, others, one) == (2, others, Resume.NO)
    assert "continuing with 1 of 2 ranks from the start" in capsys.readouterr().out
    make_state().save(last)
    assert begin(Resume.NO, 2, others, one) == (2, others, Resume.YES)
    assert "continuing with 1 of 2 ranks from the last saved state" in capsys.readouterr().out
    assert begin(Resume.YES, 0, 0, two) == (2, 0, Resume.YES)


def test_a_fault_repeats_itself_if_as_many_ranks_saved_nothing_new():
    assert not repeats_itself([(2, 0), (2, 0)]), "the first loss"
    assert repeats_itself([(2, 0), (2, 0), (2, 0)])
    assert repeats_itself([(3, 0), (2, 5), (2, 7), (2, 7)])
    assert not repeats_itself([(2, 0), (2, 0), (2, 5)]), "a state was saved"
    assert not repeats_itself([(3, 5), (2, 5), (1, 5)]), "a rank was lost"


@pytest.fixture(scope="module")
def undisturbed(copied_table, tmp_path_factory) -> Checkpoint:
    """The checkpoint of a training with the same steps, all of them on one rank."""
    workspace = copied_table(tmp_path_factory.mktemp("undisturbed") / "workspace")
    train_here(workspace, **CHANGES, batch_size=16, streams=2)
    return Checkpoint.load(workspace.checkpoints / BEST)


@pytest.fixture
def elastic(tmp_path) -> list:
    """The launcher with its arguments, for two ranks on two names of this host."""
    hosts = tmp_path / "hosts.sh"
    hosts.write_text(HOSTS)
    hosts.chmod(0o755)
    words = ["--gloo", "-np", "2", "--min-np", "1", "--host-discovery-script", hosts, "--network-interfaces", "lo"]
    return [BIN / "horovodrun", *words, BIN / "python"]


@pytest.mark.slow
def test_a_fault_that_repeats_itself_is_not_a_lost_rank(elastic, tmp_path):
    faulty = f"""
from horovod.common.exceptions import HorovodInternalError
from conf.settings import Settings
from conf.workspace import Workspace
from conf.arguments import Resume
from training.ranks.elastic import run_elastic

def run_rank(settings, workspace, resume):
    print("begins", flush=True)
    raise HorovodInternalError("a tensor that fits nowhere")

settings = Settings({str(tmp_path / "workspace")!r})
run_elastic(settings, Workspace.of(settings), False, run_rank)
"""
    command = [str(word) for word in (*elastic, "-c", faulty)]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert finished.returncode != 0
    assert finished.stdout.count("begins") == 4, "twice on each rank"
    assert "HorovodInternalError: a tensor that fits nowhere" in finished.stdout + finished.stderr


@pytest.mark.long
@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_training_that_loses_a_rank_ends_where_an_undisturbed_one_does(
    copied_table, undisturbed, elastic, tmp_path, monkeypatch, victim
):
    monkeypatch.setitem(LAUNCHERS, "elastic", elastic)
    workspace = copied_table(tmp_path / "workspace")
    run = start(workspace, "elastic", **CHANGES)
    wait_for_epoch(run, workspace, 0)
    ranks_of(run)[victim].kill()
    output = finish(run)

    assert "Lost a rank: continuing with 1 of 2 ranks from the last saved state" in output
    assert "Traceback" not in output
    assert not (workspace.checkpoints / LAST).exists()
    got = Checkpoint.load(workspace.checkpoints / BEST)
    assert got.epoch == undisturbed.epoch
    for name, tensor in undisturbed.weights.items():
        torch.testing.assert_close(got.weights[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    use_store(workspace)
    (tracked,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert (tracked.info.run_id, tracked.info.status) == (got.run_id, "FINISHED")
