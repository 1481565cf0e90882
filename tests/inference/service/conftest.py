"""A registry with one toy model; each file of tests starts a service of its own on it."""

import pytest

from conf.workspace import Workspace
from tests.inference.service import toy


@pytest.fixture(scope="module")
def registry(new_store, tmp_path_factory) -> Workspace:
    """Its champion is the toy model, which knows the boxes of one film."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry")))
    new_store(workspace)
    known = toy.film(140, toy.SIZE_PX)
    toy.register(workspace, boxes=toy.boxes_of(known, [[0, 0.25, 0.5, 0.1, 0.2]]))
    return workspace
