"""The console command in a checkout: its words, its help, and what it becomes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import chexscale
from training.record import tracking

PROJECT = Path(__file__).parents[2]
FAKE = """#!/bin/sh
echo "$0 $PYSPARK_PYTHON"
for word in "$@"; do echo "$word"; done
exit 7
"""


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    given = [sys.executable, str(PROJECT / "jobs/chexscale.py"), *words]
    return subprocess.run(given, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_every_file_that_people_type_has_a_word():
    stages = ("etl", "training", "inference", "jobs")
    top = {str(path.relative_to(PROJECT)) for stage in stages for path in (PROJECT / stage).glob("*.py")}
    without = {"jobs/chexscale.py", *(f"{stage}/__init__.py" for stage in stages)}
    assert set(chexscale.FILES.values()) == top - without


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_words_are_listed_with_the_first_line_of_their_files(words):
    done = command(*words)
    assert done.returncode == 0
    for word, file in chexscale.FILES.items():
        first = (PROJECT / file).read_text(encoding="utf-8").splitlines()[0].strip('"')
        assert f"  {word:12} {first}\n" in done.stdout


def test_a_word_runs_its_file_with_all_that_follows():
    own = subprocess.run(
        [sys.executable, PROJECT / "inference/infer.py", "--help"], capture_output=True, text=True, timeout=60
    )
    assert command("infer", "--help").stdout == own.stdout
    wrong = command("train", "--training.epoch", "3")
    assert wrong.returncode == 2
    assert "did you mean --training.epochs" in wrong.stderr


@pytest.mark.parametrize("word", chexscale.BY_SPARK)
def test_spark_starts_the_file_with_this_python_and_ends_with_its_code(word, tmp_path):
    fake = tmp_path / "spark-submit"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    code = f"import sys; from jobs import chexscale; sys.executable = {str(tmp_path / 'python')!r}; chexscale.main()"
    words = ["--workspace", "a b", "--etl.sizes_px", "[96]"]
    environment = {name: value for name, value in os.environ.items() if name != "PYSPARK_PYTHON"}
    environment["PYTHONPATH"] = str(PROJECT)
    given = [sys.executable, "-c", code, word, *words]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 7, done.stderr
    said = [f"{fake} {tmp_path / 'python'}", str(PROJECT / chexscale.FILES[word]), *words]
    assert done.stdout.splitlines() == said


def test_a_machine_without_spark_is_told_what_to_install(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chexscale.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chexscale.sys, "argv", ["chexscale", "etl"])
    with pytest.raises(SystemExit) as ended:
        chexscale.main()
    assert ended.value.code == 2
    assert "install the extra `etl`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reg"], "no command 'reg'; did you mean register?"),
        (["preprocess.py"], "no command 'preprocess.py'"),
        (["--file", "infr"], "no command '--file infr'; did you mean infer?"),
        (["--file"], "no command '--file'\n"),
    ],
)
def test_an_unknown_word_is_refused_with_what_was_meant(words, said):
    done = command(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_installed_file_of_a_word_is_printed_for_launchers():
    assert command("--file", "etl").stdout == f"{PROJECT / 'etl/preprocess.py'}\n"


def test_a_scenario_that_is_not_here_is_named_where_it_was_installed(tmp_path):
    code = "import sys; from jobs import chexscale; chexscale.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--config", "conf/nih.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"--config {PROJECT / 'conf/nih.yaml'}\n" in done.stderr


def test_the_commit_of_a_checkout_around_the_environment_is_not_taken_for_ours(tmp_path, monkeypatch):
    installed = tmp_path / "somebody" / "site-packages" / "training" / "record"
    installed.mkdir(parents=True)
    git = ["git", "-C", str(tmp_path / "somebody"), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(tracking, "__file__", str(installed / "tracking.py"))
    assert tracking.git_commit() == "unknown"
