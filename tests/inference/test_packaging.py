"""The command that packages a model, and the commands that take a package, as a user runs them."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from inference.model.model_files import find_model
from inference.model.package import open_package
from inference.model.served_model import open_served
from tests.in_process import Ended, run_here
from tests.inference.conftest import REPOSITORY
from tests.inference.service import toy

FILM = toy.film(170, toy.SIZE_PX)


@pytest.fixture(scope="module")
def registry(new_store, tmp_path_factory) -> Workspace:
    """Version 1, and version 2 with opposite answers, which is the champion."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry")))
    new_store(workspace)
    toy.register(workspace)
    toy.register(workspace, weights=-toy.WEIGHTS)
    return workspace


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in this process, which has its imports already, from an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run_(command: str, *arguments: object) -> Ended:
        return run_here(REPOSITORY / "inference" / f"{command}.py", *arguments)

    return run_


def test_a_package_answers_on_a_machine_without_the_registry(registry, run, tmp_path):
    film = tmp_path / "film.png"
    film.write_bytes(toy.png(FILM))
    packaged = run("package", f"--workspace={registry.root}")
    assert packaged.code == 0, packaged.stderr
    assert packaged.stdout.startswith("chexscale-2.zip holds chexscale version 2, INT8; package ")
    asked = ["--format=json", film]
    expected = run("infer", f"--workspace={registry.root}", *asked)
    nowhere = tmp_path / "nowhere"
    got = run("infer", f"--workspace={nowhere}", "--model=chexscale-2.zip", *asked)
    assert (got.code, got.stdout) == (0, expected.stdout), got.stderr
    assert f"chexscale version 2, package {open_package(Path('chexscale-2.zip')).package[:12]}, INT8" in got.stderr
    assert not nowhere.exists()


def test_another_version_and_another_file(registry, run):
    assert run("package", f"--workspace={registry.root}", "--output=first.zip", "1").code == 0
    assert open_package(Path("first.zip")).version == 1
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["first.zip"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["7"], r"no version or alias 7 of chexscale in .*known are 1, 2 (@champion)"),
        (["--output=model.tar"], "--output is model.tar, expected a file that ends with .zip"),
        (["--output=x.zip", "--model_server=x"], "are both given, expected one of them"),
        (["--model_server=x", "--modes=[int8, onnx]"], "takes one graph, expected --modes with one of"),
        (["--modes=[onnx]"], "has no mode onnx, it has int8: choose among these with --modes"),
        (["--model_server=x", "--modes=onnx"], "has no mode onnx, it has int8: choose among these with --modes"),
    ],
)
def test_what_cannot_be_packaged_is_said(registry, run, arguments, message):
    ended = run("package", f"--workspace={registry.root}", *arguments)
    assert ended.code == 2 and "Traceback" not in ended.stderr
    assert message.replace(r".*", "") in ended.stderr or all(part in ended.stderr for part in message.split(".*"))
    assert list(Path.cwd().iterdir()) == []


def test_commands_refuse_a_package_that_was_changed(registry, run, tmp_path):
    run("package", f"--workspace={registry.root}", "--output=model.zip")
    shutil.unpack_archive("model.zip", "model")
    (Path("model") / "int8" / "model.bin").write_bytes(b"")
    (tmp_path / "film.png").write_bytes(toy.png(FILM))
    source = f"--scoring.source={tmp_path}"
    for command, *arguments in (
        ("infer", tmp_path / "film.png"),
        ("predict", source, f"--scoring.output={tmp_path / 'scores'}"),
        ("serve", "--serving.port=0"),
        ("lineage",),
    ):
        ended = run(command, "--model=model", *arguments)
        assert ended.code == 2 and "int8/model.bin has 0 bytes, expected" in ended.stderr, command
        assert "Traceback" not in ended.stderr and ended.stdout == ""
    assert not (tmp_path / "scores").exists()


def test_a_package_says_where_it_came_from_without_its_table(registry, run, tmp_path):
    run("package", f"--workspace={registry.root}", "--output=model.zip")
    ended = run("lineage", "--model=model.zip", f"--workspace={tmp_path / 'nowhere'}")
    lineage = json.loads(ended.stdout)
    assert ended.code == 0 and "the images are left out: no dataset card at" in ended.stderr
    assert lineage["package"] == open_package(Path("model.zip")).package and lineage["images"] is None
    origin = [getattr(toy.PROPERTIES, name) for name in ("run_id", "delta_table_id", "delta_version", "commit")]
    assert [lineage[name] for name in ("run_id", "delta_table_id", "delta_version", "commit")] == origin


def test_a_repository_of_openvino_model_server(registry, run, tmp_path):
    """Reads it as the server's documentation says that the server does; the server itself was not run."""
    served = tmp_path / "served"
    other = {"config": {"name": "other", "base_path": "/elsewhere"}}
    served.mkdir()
    (served / "config.json").write_text(json.dumps({"model_config_list": [other]}))
    for version in (1, 2, 2):
        ended = run("package", f"--workspace={registry.root}", f"--model_server={served}", version)
        assert ended.code == 0, ended.stderr
    config = json.loads((served / "config.json").read_text())
    assert list(config) == ["model_config_list"] and config["model_config_list"][0] == other
    (own,) = [one["config"] for one in config["model_config_list"][1:]]
    folder = served / own["base_path"]
    assert own["name"] == folder.name == toy.NAME
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1", "2"]
    assert RESEARCH_USE in (folder / "README.md").read_text()
    for version in ("1", "2"):
        assert sorted(path.name for path in (folder / version).iterdir()) == ["model.bin", "model.xml"]
        compiled = ov.Core().compile_model(folder / version / "model.xml", "CPU", own["plugin_config"])
        got = compiled({"pixels": FILM[None]})
        expected = open_served(find_model(registry, toy.NAME, version)).predict(FILM[None])
        for name, part in expected._asdict().items():
            assert np.array_equal(got[name], part)


@pytest.mark.parametrize("tool", ["ssh-keygen", "gpg"])
def test_the_documented_signatures_fit(registry, run, tmp_path, tool):
    """Runs the commands of docs/serving.md, and then once more on a package that was changed after signing."""
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} on this machine: `apt-get install {'gnupg' if tool == 'gpg' else 'openssh-client'}`")
    run("package", f"--workspace={registry.root}", "--output=chexscale-3.zip")
    page = (REPOSITORY / "docs" / "serving.md").read_text()
    block = next(part for part in page.split("```bash\n") if part.startswith(f"# {tool}")).partition("```")[0]
    # A key of its own, and a home in which GnuPG keeps nothing of the user's.
    home = Path.cwd() / "keys"
    home.mkdir(mode=0o700)
    key = "ssh-keygen -q -t ed25519 -N '' -f signing_key"
    if tool == "gpg":
        key = "gpg --batch --quiet --passphrase '' --quick-generate-key 'Model Signer <signer@example.org>'"
    environment = {"PATH": "/usr/bin:/bin", "GNUPGHOME": str(home), "HOME": str(home)}
    whole = ["bash", "-ec", f"{key}\n{block}"]
    ended = subprocess.run(whole, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
    assert "Good" in ended.stdout + ended.stderr
    with open("chexscale-3.zip", "ab") as package:
        package.write(b" ")
    verify = block.strip().splitlines()[-1]
    ended = subprocess.run(["bash", "-ec", verify], env=environment, capture_output=True, text=True)
    if tool == "gpg":
        subprocess.run(["gpgconf", "--kill", "all"], env=environment)
    assert ended.returncode != 0
