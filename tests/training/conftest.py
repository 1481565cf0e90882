import re
from collections.abc import Callable
from pathlib import Path

import pytest
import s3fs

from conf.settings import Training
from conf.workspace import Workspace
from etl.contract.schema import Card
from etl.contract.version import TableVersion
from tests.conftest import SIZE_PX
from training.ranks.topology import Topology
from training.reading.plan import Split
from training.reading.readers import open_split
from training.start.caching import cached

WAYS = ["on a disk", "in a store", "in a store, cached"]
"""of reading a table"""


@pytest.fixture
def workspace(copied_table, tmp_path) -> Workspace:
    """A copy of the small table, so that each training has its own."""
    return copied_table(tmp_path / "workspace")


@pytest.fixture
def to_store(s3_server, request) -> Callable[[Path], str]:
    """Returns a function that copies a file or folder into a bucket of the test, and returns its address there."""
    bucket = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-")
    client = s3fs.S3FileSystem(skip_instance_cache=True)
    client.mkdir(bucket)

    def copy(path: Path) -> str:
        client.put(str(path), f"{bucket}/{path.name}", recursive=True)
        return f"s3://{bucket}/{path.name}"

    return copy


@pytest.fixture(params=WAYS)
def opened(request, tmp_path) -> Callable[[Path, Card, str], Split]:
    """Returns a function that opens a split of a table, which lies where the test is to read it from."""
    places: dict[Path, str] = {}

    def open_there(shards: Path, card: Card, name: str) -> Split:
        if request.param == "on a disk":
            return open_split(TableVersion(str(shards), card), name, SIZE_PX)
        if shards not in places:
            places[shards] = request.getfixturevalue("to_store")(shards)
        split = open_split(TableVersion(places[shards], card), name, SIZE_PX)
        if "cached" not in request.param:
            return split
        return cached([split], Training(cache_dir=str(tmp_path / "cache")), Topology.detect("cpu", {}))[0]

    return open_there
