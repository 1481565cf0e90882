"""The table of percentages of a workspace's table."""

import runpy
import sys
from dataclasses import replace

from conf.workspace import Workspace
from tests.conftest import make_card
from tests.training.commands import PROJECT


def test_it_prints_each_splits_share_and_a_dash_where_no_label_is_known(tmp_path, monkeypatch, capsys):
    card = make_card(["Bright", "Never"], [2, 0], [8, 0])
    percentages = {split: {"Bright": 25.0, "Never": 0.0} for split in ("train", "val", "test")}
    workspace = Workspace.at(str(tmp_path))
    replace(card, percentages=percentages, source="/data/nih").write(workspace.card)
    monkeypatch.setattr(sys, "argv", ["stats.py", f"--workspace={tmp_path}"])
    runpy.run_path(str(PROJECT / "jobs" / "stats.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "nih, Delta version" in printed
    rows = {line.split()[1]: line.split()[3::2] for line in printed.splitlines() if line.startswith("│")}
    assert rows["Bright"] == ["25.00"] * 3 and rows["Never"] == ["-"] * 3
