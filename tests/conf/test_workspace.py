import json

import pytest

from conf.workspace import Workspace, atomic_path, update_summary


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "card.json"
    target.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_sections_of_the_summary_are_merged(tmp_path):
    workspace = Workspace.at(str(tmp_path))
    update_summary(workspace, data={"images": 3}, peak_memory_mb={"etl_worker": 1})
    update_summary(workspace, peak_memory_mb={"register": 2})
    assert json.loads(workspace.summary.read_text()) == {
        "data": {"images": 3},
        "peak_memory_mb": {"etl_worker": 1, "register": 2},
    }
