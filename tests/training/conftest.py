import pytest

from conf.workspace import Workspace


@pytest.fixture
def workspace(copied_table, tmp_path) -> Workspace:
    """A copy of the small table, so that each training has its own."""
    return copied_table(tmp_path / "workspace")
