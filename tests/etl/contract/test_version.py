import shutil

import pytest

from conf.errors import InputError
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from tests.etl.tables import add, film, run


def test_an_old_version_of_a_table_that_was_made_anew_is_refused(nih_folder, tmp_path):
    workspace = Workspace.at(str(tmp_path))
    # The copy of the card is older than the table, as after a kill between the commit and the copy.
    old = run(nih_folder, workspace).card
    add(nih_folder, 31, 0, film(1))
    newer = run(nih_folder, workspace).card
    newer.write(workspace.card)
    assert TableVersion.of(workspace).trained_on(old.delta_table_id, 0, "the model").card.delta_version == 0
    shutil.rmtree(workspace.shards)
    shutil.rmtree(workspace.quarantine)
    run(nih_folder, workspace)
    with pytest.raises(InputError, match="made anew since the model was trained"):
        TableVersion.of(workspace).trained_on(old.delta_table_id, 0, "the model")
