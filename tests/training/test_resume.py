"""Trainings that are stopped or killed in the middle, by the command, and go on."""

import os
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import mlflow
import psutil
import pytest
import torch

from conf.arguments import Resume
from conf.errors import InputError
from conf.settings import Settings, Training
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from jobs.benchmarks.stores import link
from tests.conftest import SIZE_PX, make_checkpoint, write_small_table
from tests.training.commands import (
    BIN,
    EPOCHS,
    LAUNCHERS,
    SETTINGS,
    cpus_of,
    finish,
    ranks_of,
    start,
    train_here,
    wait_for_epoch,
)
from tests.training.toy_training import make_state
from training.loop.task import Task
from training.network.build import build_model
from training.network.checkpoint import BEST, LAST, Checkpoint, State
from training.ranks.binding import Choice
from training.ranks.cores import read_cores
from training.ranks.interruption import EXIT_SIGTERM
from training.reading.plan import Plan, Split
from training.record.store import use_store
from training.start.resume import look_back, read_state


@pytest.fixture(scope="module")
def stages(tmp_path_factory) -> dict:
    """Settings of a training in two stages from given weights."""
    start_from = tmp_path_factory.mktemp("weights") / "first.pt"
    first = {"model": SETTINGS["model"], "findings": [], "run_id": "first", "settings": {}}
    torch.save({"weights": build_model(SETTINGS["model"], 2, 100, 50).state_dict()} | first, start_from)
    return {"head_epochs": 1, "epochs": EPOCHS - 1, "weights": start_from}


@pytest.fixture(scope="module")
def undisturbed(copied_table, tmp_path_factory, stages) -> Checkpoint:
    """How a training in these stages on two ranks ends that nothing has stopped."""
    whole = copied_table(tmp_path_factory.mktemp("undisturbed") / "workspace")
    finish(start(whole, "horovodrun", **stages))
    return Checkpoint.load(whole.checkpoints / BEST)


def check_same_end(workspace: Workspace, expected: Checkpoint) -> Checkpoint:
    """Checks that the best checkpoints are the same, bit for bit; returns the workspace's."""
    got = Checkpoint.load(workspace.checkpoints / BEST)
    assert (got.epoch, got.val_auroc, got.ancestors) == (expected.epoch, expected.val_auroc, expected.ancestors)
    for name, tensor in expected.weights.items():
        assert torch.equal(got.weights[name], tensor), name
    return got


@pytest.mark.long
def test_a_training_that_was_killed_ends_where_an_undisturbed_one_does(workspace, stages, undisturbed):
    broken = workspace
    killed = start(broken, "horovodrun", **stages)
    wait_for_epoch(killed, broken, 2)
    assert State.load(broken.checkpoints / LAST).stage == 1
    for process in psutil.Process(killed.pid).children(recursive=True):
        process.kill()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()

    output = finish(start(broken, "horovodrun", **stages, resume="true"))
    assert "Traceback" not in output
    assert not (broken.checkpoints / LAST).exists()
    got = check_same_end(broken, undisturbed)
    assert got.ancestors == [{"source": "first.pt", "run_id": "first"}]
    use_store(broken)
    runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert [run.info.status for run in runs] == ["FINISHED"] * 3, "the training's and its stages'"
    # Of two ranks the larger needs 4 steps of 8 images.
    steps = {metric.step for metric in mlflow.MlflowClient().get_metric_history(got.run_id, "step_loss")}
    assert steps == set(range(4 * EPOCHS))


@pytest.mark.long
def test_a_training_whose_keys_end_keeps_its_state_and_resumes_bit_for_bit(
    workspace, stages, undisturbed, to_store, store_link, s3_server, s3_folder, tmp_path
):
    broken = workspace
    replace(Card.read(broken.card), table=to_store(broken.shards).removesuffix("/shards")).write(broken.card)
    shutil.rmtree(broken.shards)
    # Room for a part of the table, so that the training needs the store in each epoch.
    settings = stages | {"cache_dir": tmp_path / "cache", "cache_gb": 1e-4}
    stopped = start(broken, "horovodrun", **settings)
    wait_for_epoch(stopped, broken, 1)
    with link.s3_server(link.find_server(), s3_folder, secret="another") as other:
        store_link.connect(other)
        output = stopped.communicate(timeout=120)[0]
    assert stopped.returncode != 0
    assert output.count("cannot be read (") == 1 and "--resume, which continues" in output, output
    assert "Traceback" not in output

    store_link.connect(int(s3_server.rpartition(":")[2]))
    output = finish(start(broken, "horovodrun", **settings, resume="true"))
    assert "Cache: " in output
    assert 0 < sum(file.stat().st_size for file in tmp_path.glob("cache/*/row_groups/*")) <= 1e5
    check_same_end(broken, undisturbed)


TWO_CPUS = sorted(os.sched_getaffinity(0))[:2]
# torchrun's ranks are bound by another program before they start. Rank 0 gets the second CPU, so that a share of the
# first one would show.
BOUND = f'exec taskset -c $([ "$LOCAL_RANK" = 0 ] && echo {TWO_CPUS[-1]} || echo {TWO_CPUS[0]}) "$@"'


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("launcher", "code_of_rank"),
    [("none", ""), ("horovodrun", "exit with status code {}"), ("torchrun", r"exitcode\s*: {}")],
)
def test_sigterm_of_one_rank_saves_and_ends_all_with_its_own_code(workspace, launcher, code_of_rank, monkeypatch):
    """Meanwhile the ranks train on cores of their own, or on those to which the launcher bound them."""
    torchrun = LAUNCHERS["torchrun"]
    monkeypatch.setitem(LAUNCHERS, "torchrun", [*torchrun, "--no-python", "sh", "-c", BOUND, "sh", BIN / "python"])
    run = start(workspace, launcher, epochs=15, resume="auto")
    wait_for_epoch(run, workspace, 0)
    cpus = [] if launcher == "none" else cpus_of(run)
    (run if launcher == "none" else ranks_of(run)["1"]).terminate()
    output = run.communicate(timeout=120)[0]
    if cpus and len(TWO_CPUS) == 2:
        assert cpus[0] and cpus[1] and not cpus[0] & cpus[1]
        assert launcher == "horovodrun" or cpus == [{TWO_CPUS[1]}, {TWO_CPUS[0]}]
        told = "; ".join(Choice(frozenset(own), len(read_cores(own)), "").describe() for own in cpus)
        said = re.findall("(?:CPUs of this host's ranks|Ranks without).*", output)
        assert said == [f"CPUs of this host's ranks: {told}"]
    assert run.returncode == (EXIT_SIGTERM if launcher == "none" else 1)
    assert re.search(code_of_rank.format(EXIT_SIGTERM), output), output
    assert "Stopped by SIGTERM in epoch" in output
    assert "Next: the same command with --resume" in output
    use_store(workspace)
    run_id = State.load(workspace.checkpoints / LAST).run_id
    assert mlflow.get_run(run_id).info.status == "KILLED"
    if launcher == "none":
        train_here(workspace, resume=Resume.AUTO, **SETTINGS | {"epochs": 15})
        assert mlflow.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "victim"), [("horovodrun", "1"), ("torchrun", "0")])
def test_a_killed_rank_ends_all_with_a_message(workspace, launcher, victim):
    run = start(workspace, launcher, epochs=500)
    wait_for_epoch(run, workspace, 0)
    ranks = ranks_of(run)
    ranks[victim].kill()
    output = run.communicate(timeout=60)[0]
    assert run.returncode != 0
    assert output.count("another rank is lost: see") == 1
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in ranks.values())


def read(workspace: Workspace, card, plan: Plan, **changes) -> State | InputError:
    settings = Settings(str(workspace.root), training=Training(**{**SETTINGS, **changes}))
    table = TableVersion(str(workspace.shards), card)
    try:
        return read_state(Task(settings, workspace, table, plan, plan.split, plan.split, None))
    except InputError as error:
        return error


@pytest.mark.parametrize(
    ("epochs_before", "run_before", "outcome"),
    [(None, None, (False, "begins")), (8, None, (False, "resumes")), (9, None, None)]
    + [(8, "FINISHED", (True, "begins")), (9, "FINISHED", (False, "begins")), (8, "KILLED", (False, "begins"))],
)
def test_auto_resumes_its_own_training_leaves_a_finished_one_and_discards_none(
    new_store, tmp_path, capsys, epochs_before, run_before, outcome
):
    workspace, card, _ = write_small_table(tmp_path, rows_per_row_group=5)
    settings = Settings(str(workspace.root), training=Training(**{**SETTINGS, "epochs": 8}))
    plan = Plan(Split("train", [], [8, 8], SIZE_PX), 8, 2, 2)
    task = Task(settings, workspace, TableVersion(str(workspace.shards), card), plan, plan.split, plan.split, None)
    before = {**asdict(settings.training), "epochs": epochs_before, "precision": "fp32"}
    table = {"delta_table_id": card.delta_table_id, "delta_version": card.delta_version}
    if run_before:
        new_store(workspace)
        use_store(workspace)
        client = mlflow.MlflowClient()
        run_id = client.create_run("0").info.run_id
        client.set_terminated(run_id, run_before)
        checkpoint = make_checkpoint(settings={"training": before}, run_id=run_id, **table)
        checkpoint.save(workspace.checkpoints / BEST)
    elif epochs_before:
        make_state(settings=before, plan=plan.describe(), **table).save(workspace.checkpoints / LAST)
    if outcome:
        is_over, state = look_back(task, Resume.AUTO)
        assert (is_over, "resumes" if state else "begins") == outcome
        assert ("This training has finished" in capsys.readouterr().out) == is_over
    else:
        with pytest.raises(InputError, match="epochs was 9, is 8.* choose another workspace, or leave out --resume"):
            look_back(task, Resume.AUTO)
    assert look_back(task, Resume.NO) == (False, None)


def test_auto_knows_a_finished_training_that_other_ranks_shared_out_otherwise(new_store, tmp_path):
    workspace, card, _ = write_small_table(tmp_path, rows_per_row_group=5)
    settings = Settings(str(workspace.root), training=Training(**SETTINGS))
    plan = Plan(Split("train", [], [8, 8], SIZE_PX), 8, 2, 2)
    task = Task(settings, workspace, TableVersion(str(workspace.shards), card), plan, plan.split, plan.split, None)
    new_store(workspace)
    use_store(workspace)
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    mlflow.MlflowClient().set_terminated(run_id)
    # As an elastic training leaves it that has lost one of two ranks.
    one = {**asdict(settings.training), "batch_size": 16, "streams": 2, "accumulation": 2, "precision": "fp32"}
    table = {"delta_table_id": card.delta_table_id, "delta_version": card.delta_version}
    for images, is_over in ((16, True), (8, False)):
        described = {**plan.describe(), "images_per_step": images}
        checkpoint = make_checkpoint(settings={"training": one}, run_id=run_id, plan=described, **table)
        checkpoint.save(workspace.checkpoints / BEST)
        assert look_back(task, Resume.AUTO) == (is_over, None)


def test_only_the_same_training_goes_on(tmp_path):
    workspace, card, _ = write_small_table(tmp_path, rows_per_row_group=5)
    plan = Plan(Split("train", [], [8, 8], SIZE_PX), 8, 2, 2)
    assert "no interrupted training at" in str(read(workspace, card, plan))
    table = {"delta_table_id": card.delta_table_id, "delta_version": card.delta_version}
    state = make_state(
        epoch=1, step=2, settings=asdict(Training(**SETTINGS, precision="fp32")), plan=plan.describe(), **table
    )
    state.save(workspace.checkpoints / LAST)
    assert read(workspace, card, plan, threads=1, cache_dir="/scratch", cache_gb=1).step == 2
    # The same images per step, shared out among fewer ranks.
    alone = Plan(plan.split, 16, 1, 2)
    assert read(workspace, card, alone, batch_size=16, streams=2).epoch == 1
    assert "learning_rate was 0.001, is 0.1" in str(read(workspace, card, plan, learning_rate=0.1))
    assert "parallel_streams was 2, is 1" in str(read(workspace, card, Plan(plan.split, 16, 1, 1), batch_size=16))
    assert "table was ('table', 0), is ('table', 1)" in str(read(workspace, replace(card, delta_version=1), plan))
    began = asdict(Training(**SETTINGS, precision="bf16"))
    make_state(settings=began, plan=plan.describe(), **table).save(workspace.checkpoints / LAST)
    # Whatever this machine would take: the state says which it was.
    assert read(workspace, card, plan, precision="auto").settings["precision"] == "bf16"
    assert read(workspace, card, plan, precision="bf16").settings["precision"] == "bf16"
    refused = str(read(workspace, card, plan, precision="fp32"))
    assert "precision was bf16, is fp32" in refused and "give the same settings" in refused
    path: Path = workspace.checkpoints / LAST
    path.write_bytes(path.read_bytes()[:-50])
    assert "is not a readable checkpoint" in str(read(workspace, card, plan))
