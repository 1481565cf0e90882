"""What the ETL's command says at its start and at its end; test_cluster.py and others run it whole."""

import shlex
import sys
from types import SimpleNamespace

import pytest

from conf.arguments import load_settings
from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.writing.run import next_command, open_places


@pytest.mark.parametrize(
    ("words", "stored", "expected"),
    [
        ("--etl.sizes_px 64", [64], 64),
        ("--etl.sizes_px 64 --training.size_px 96", [64], 64),
        ("--etl.sizes_px=[32,100,512]", [32, 100, 512], 100),
        ("--etl.seed 3", [96, 512], 96),
        ("--training.size_px 512", [96, 512], 512),
    ],
)
def test_the_next_command_trains_on_a_size_that_is_stored(words, stored, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["etl/preprocess.py", *words.split()])
    wanted = load_settings("").training.size_px
    command = shlex.split(next_command(SimpleNamespace(sizes_px=stored), wanted))
    assert command[:5] == ["horovodrun", "-np", "2", "python", "training/train.py"]
    assert load_settings("", command[5:]).training.size_px == expected
    assert load_settings("", command[5:]).etl == load_settings("").etl
    assert ("--training.size_px" in command) == ("training" in words or wanted != expected)


def test_a_source_that_is_its_own_workspace_is_refused(tmp_path):
    for source in (tmp_path / "films", tmp_path / "link"):
        (tmp_path / "films").mkdir(exist_ok=True)
        (tmp_path / "link").is_symlink() or (tmp_path / "link").symlink_to(tmp_path / "films")
        with pytest.raises(InputError, match="etl.source is the workspace .*choose another folder with --workspace"):
            open_places(Etl(source=str(source), format="classes"), Workspace.at(str(tmp_path / "films")))
    (source,), _ = open_places(
        Etl(source=str(tmp_path / "films"), format="classes"), Workspace.at(str(tmp_path / "films/run"))
    )
    assert (str(source.place), source.name) == (str(tmp_path / "films"), "films")
