"""Distribution and resuming must not change the weights that a training ends with."""

import subprocess
from pathlib import Path

import pytest
import torch

from tests.training.commands import BIN, PROJECT
from tests.training.toy_training import ROW_GROUPS, STOPS, run, write_table
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology

MODULE = ["-m", "tests.training.toy_training"]
LAUNCHES = {
    "horovodrun 2": [BIN / "horovodrun", "--gloo", "-np", "2", BIN / "python", *MODULE],
    "torchrun 2": [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", *MODULE],
    "horovodrun, torch's collectives, 4": [BIN / "horovodrun", "--gloo", "-np", "4", BIN / "python", *MODULE],
}
# Each launch takes half a minute, so ranks read a store once only; the test of one process above covers both ways.
WAYS = {"torchrun 2": "cache"}


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "table.parquet"
    write_table(path)
    return path


@pytest.fixture(scope="module")
def alone(table) -> dict[str, dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run(str(table), Collectives(Topology.detect("cpu", {})))
    torch.set_num_threads(threads)


def check_resumed(ends: dict[str, dict]) -> None:
    """Checks that resumed trainings end with the same weights, bit for bit."""
    for epoch, step in STOPS:
        for name, tensor in ends[f"resumed {epoch} {step}"]["weights"].items():
            assert torch.equal(tensor, ends["whole"]["weights"][name]), (epoch, step, name)


def check_close(one: dict, other: dict) -> None:
    for name, tensor in one["weights"].items():
        torch.testing.assert_close(tensor, other["weights"][name], rtol=0, atol=1e-5, msg=name)
    assert one["losses"] == pytest.approx(other["losses"], abs=1e-5)
    # Several ranks read the split in a different order than one process.
    logits = [end["logits"][end["logits"][:, 0].argsort()] for end in (one, other)]
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


def test_one_process_resumes_bit_for_bit_and_accumulates(alone):
    check_resumed(alone)
    check_close(alone["accumulated"], alone["frozen"])
    assert len(alone["frozen"]["losses"]) == 20


@pytest.mark.parametrize("cache", ["", "cache"])
def test_a_table_in_a_store_gives_the_same_bit_for_bit(table, alone, to_store, tmp_path, cache, monkeypatch):
    # Each of its trainings reads two epochs, so that the cache serves the second one.
    monkeypatch.setattr("tests.training.toy_training.STOPS", [(0, 4), (1, 7)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ends = run(to_store(table), Collectives(Topology.detect("cpu", {})), str(tmp_path / cache) if cache else "")
    torch.set_num_threads(threads)
    assert len(list(tmp_path.glob("cache/*/row_groups/*"))) == (len(ROW_GROUPS) if cache else 0)
    for name, end in ends.items():
        assert all(torch.equal(tensor, alone[name]["weights"][key]) for key, tensor in end["weights"].items()), name
        assert end["losses"] == alone[name]["losses"]


@pytest.mark.slow
@pytest.mark.parametrize("launch", LAUNCHES)
def test_ranks_learn_what_one_process_learns(table, alone, request, tmp_path, launch):
    way = WAYS.get(launch, "disk")
    place = table if way == "disk" else request.getfixturevalue("to_store")(table)
    command = [str(word) for word in [*LAUNCHES[launch], tmp_path, place]]
    command += ["--torch_collectives"] * ("torch's" in launch) + ["--cache_dir", str(tmp_path / "c")] * (way == "cache")
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    ranks = [torch.load(path) for path in sorted(tmp_path.glob("rank_*.pt"))]
    assert len(ranks) == int(launch[-1])
    for ends in ranks:
        check_close(ends["frozen"], alone["frozen"])
        check_close(ends["accumulated"], alone["frozen"])
        assert len(ends["frozen"]["logits"]) == sum(ROW_GROUPS)
        for name, end in ranks[0].items():
            assert all(torch.equal(end["weights"][key], ends[name]["weights"][key]) for key in end["weights"]), name
        if len(ranks) == 2:
            check_resumed(ends)
