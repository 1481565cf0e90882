"""What distribution is for: two ranks end with the weights that one process finds on all the images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.two_ranks import ROW_GROUPS, train, write_table

PROJECT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MODULE = ["-m", "tests.training.two_ranks"]
LAUNCHERS = {
    "horovodrun": [BIN / "horovodrun", "-np", "2", BIN / "python", *MODULE],
    "torchrun": [BIN / "torchrun", "--nproc_per_node", "2", *MODULE],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_ranks_learn_what_one_process_learns(tmp_path, launcher):
    write_table(tmp_path / "table.parquet")
    command = [str(word) for word in [*LAUNCHERS[launcher], tmp_path]]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in range(2))
    alone = train(tmp_path / "table.parquet")

    assert first["weights"] == second["weights"]
    assert first["weights"] == pytest.approx(alone["weights"], abs=1e-5)
    assert first["losses"] == second["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert first["logits"] == second["logits"]
    assert len(first["logits"]) == sum(ROW_GROUPS)
    assert first["statistic"] == second["statistic"] == [1.5], "the mean of the ranks' 1 and 2"
