"""Tables on a file system without hard links, such as a volume of Databricks."""

import subprocess
import sys

from tests.etl.spark_commands import PROJECT

PROGRAM = """
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from conf.workspace import Workspace
from etl.contract.delta import keep_history, vacuum
from etl.contract.table import read_card
from inference.batch.scores import Run, answer_schema, append_scores
from tests.conftest import NihFolder
from tests.etl.tables import add, film, rows_of, run
from tests.file_systems import forbid_hard_links

forbid_hard_links()
root = Path(sys.argv[1])
with pytest.raises(OSError):
    os.link(__file__, root / "link")

folder, workspace = NihFolder(root / "nih"), Workspace.at(str(root / "workspace"))
assert run(folder, workspace).card.delta_version == 0
name = add(folder, 30, 0, film(1))
card = run(folder, workspace).card
assert card.delta_version == 1 and name in rows_of(workspace, card).index
keep_history(str(workspace.shards))
vacuum(str(workspace.shards), {0, 1}, 0)
assert read_card(str(workspace.shards)) == card

scored_at = datetime(2017, 1, 1, tzinfo=UTC)
for number in (0, 1):
    run = Run("chexscale", number, "int8", "hash", "source", 0, scored_at)
    row = {field.name: [None] for field in answer_schema([])} | {"image_id": ["a"], "image_version": ["1"]}
    rows, version = append_scores(str(workspace.scores), pa.table(row, answer_schema([])), run)
    assert version == number
print("all were committed")
assert not list(root.rglob(".links-*"))
"""


def test_tables_and_scores_are_written_without_hard_links(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(PROJECT), "PATH": ""}, cwd=PROJECT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "all were committed\n"), done.stderr
    assert done.stderr.count("shards is on a file system without hard links: let no other program write to it") == 1
