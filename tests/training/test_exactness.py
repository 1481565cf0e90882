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


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ranks") / "table.parquet"
    write_table(path)
    return path


@pytest.fixture(scope="module")
def alone(table) -> dict[str, dict]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run(table, Collectives(Topology.detect("cpu", {})))
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


@pytest.mark.slow
@pytest.mark.parametrize("launch", LAUNCHES)
def test_ranks_learn_what_one_process_learns(table, alone, tmp_path, launch):
    (tmp_path / "table.parquet").symlink_to(table)
    command = [str(word) for word in [*LAUNCHES[launch], tmp_path]]
    command += ["--torch_collectives"] * ("torch's" in launch)
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
