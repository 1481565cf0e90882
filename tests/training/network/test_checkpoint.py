import resource

import pytest
import torch

from conf.errors import InputError
from tests.conftest import make_checkpoint
from training.network.checkpoint import Checkpoint


def test_what_is_saved_is_loaded(tmp_path):
    saved = make_checkpoint()
    saved.save(tmp_path / "best.pt")
    loaded = Checkpoint.load(tmp_path / "best.pt")
    pixels = torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8)
    assert torch.equal(loaded.build()(pixels), saved.build()(pixels))
    assert (loaded.findings, loaded.run_id) == (saved.findings, saved.run_id)


def test_a_missing_checkpoint_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"no checkpoint at .* training/train.py"):
        Checkpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "best.pt"
    make_checkpoint().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        Checkpoint.load(path)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("harm",))

    torch.save({"weights": Harmful()}, tmp_path / "best.pt")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        Checkpoint.load(tmp_path / "best.pt")


@pytest.mark.parametrize("content", [b"append to list", b"tabular;data", b"s", b"", b"PK\x03\x04"])
def test_a_foreign_file_is_refused(tmp_path, content):
    for path in (tmp_path / "best.pt", tmp_path / "other.pt"):
        torch.save({"state_dict": {}}, path)
    (tmp_path / "best.pt").write_bytes(content)
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match="not a readable checkpoint"):
            Checkpoint.load(path)


def test_weights_of_another_network_are_refused(tmp_path):
    checkpoint = make_checkpoint()
    checkpoint.weights.pop("classifier.bias")
    with pytest.raises(InputError, match=r"do not fit simple_cnn"):
        checkpoint.build()


@pytest.mark.parametrize("missing", [1, 2000, 0.5])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, missing):
    """missing: bytes, or the share of the file, for which there is no room."""
    path = tmp_path / "best.pt"
    checkpoint = make_checkpoint()
    checkpoint.save(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - (missing if missing >= 1 else int(size * missing)), hard))
    try:
        with pytest.raises(InputError, match=r"best.pt cannot be written .*the previous file is intact"):
            Checkpoint(**{**vars(checkpoint), "epoch": 7}).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Checkpoint.load(path).epoch == checkpoint.epoch
    assert list(tmp_path.iterdir()) == [path]
