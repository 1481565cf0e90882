"""The wheel, installed away from the checkout: its console command runs the same files, and they find all they need."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from conf.workspace import Workspace
from etl.contract.images.lungs.files import describe_network
from etl.contract.table import snapshot_files
from jobs.chexscale import FILES

pytestmark = pytest.mark.slow
PROJECT = Path(__file__).parents[2]
STAGES = ("conf", "etl", "training", "inference", "jobs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy because the build writes into the project's folder."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for stage in STAGES:
        shutil.copytree(PROJECT / stage, source / stage, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml"):
        shutil.copy(PROJECT / file, source / file)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", folder, source], check=True, timeout=120)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The folder of programs of a fresh environment with the wheel, which sees the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = folder / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    # The editable install of the checkout is a .pth file there, which Python does not follow from here.
    (packages / "these.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q", "--no-index"]
    subprocess.run([*command, "--no-deps", "--force-reinstall", wheel], check=True, timeout=120)
    return folder / "bin"


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Runs the console command in an empty folder, where nothing leads to the checkout."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYSPARK_PYTHON")}
    path = f"{installed}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    environment = {**kept, "PATH": path, "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [str(installed / "chexscale"), *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180)


def test_the_wheel_has_every_file_that_the_commands_read(wheel):
    with zipfile.ZipFile(wheel) as opened:
        packed = set(opened.namelist())
    kinds = ("*.py", "*.yaml", "*.j2", "page/*", "spark/*", "*.txt")
    wanted = {
        str(path.relative_to(PROJECT))
        for stage in STAGES
        for kind in kinds
        for path in (PROJECT / stage).rglob(kind)
        # Schedulers and people read the jobs' files, in a checkout.
        if path.is_file() and not {"benchmarks", "container", "kubernetes"} & set(path.parts)
    }
    assert wanted - packed == set()


def test_the_words_are_listed_by_the_installed_command(installed, tmp_path):
    listed = run(installed, tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert [word for word in FILES if f"\n  {word:10} " not in listed.stdout] == []
    said = run(installed, tmp_path, "--version").stdout
    assert str(installed.parent) in said and str(PROJECT) not in said


def test_an_installed_command_shows_its_help_and_reports_what_is_missing(installed, tmp_path):
    shown = run(installed, tmp_path, "infer", "--help")
    assert shown.returncode == 0, shown.stderr
    assert "FILE_OR_FOLDER" in shown.stdout
    missing = run(installed, tmp_path, "infer", "film.png")
    assert missing.returncode == 2
    assert "Traceback" not in missing.stderr


@pytest.mark.long
def test_the_installed_files_write_a_table_and_train_a_lung_network_on_it(installed, tmp_path):
    words = ["--phantoms.num_images", "100", "--phantoms.size_px", "256", "--etl.sizes_px", "[32]"]
    words += ["--phantoms.masks", "true", "--etl.masks", "masks"]
    done = run(installed, tmp_path, "etl", "--workspace", "w", *words, "--training.size_px", "32")
    assert done.returncode == 0, done.stdout + done.stderr
    workspace = Workspace.at(str(tmp_path / "w"))
    assert snapshot_files(workspace.shards, 0, "train")
    assert workspace.card_page.exists()
    for command in (["lungs", "--lungs.size_px", "64", "--lungs.epochs", "1"], ["register_lungs"]):
        done = run(installed, tmp_path, command[0], "--workspace", "w", *command[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    assert describe_network(str(workspace.lungs / "model"))["phantoms"]


def test_a_task_of_databricks_finds_its_entry_point(installed, tmp_path):
    code = """
import sys
from importlib.metadata import distribution
(task,) = (point for point in distribution("chexscale").entry_points if point.name == "task")
sys.argv = ["chexscale", "register", "--help"]
task.load()()
print("returned")
"""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [installed / "python", "-c", code], cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.endswith("returned\n") and "inference.max_mean_drop" in done.stdout, done.stderr
