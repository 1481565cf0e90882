"""The tutorial runs as it stands, and ends with the figures that it describes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
TUTORIAL = PROJECT / "docs/tutorial_evidence.py"
FIGURES = ("films.png", "auroc.png", "hospital_b.png", "misses.png")


def cells() -> list[tuple[str, str]]:
    """Kind (empty for code) and text of each cell."""
    parts = re.split(r"^# %%(?: \[(\w+)\])?\n", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert parts[0] == ""
    return [(kind or "", text) for kind, text in zip(parts[1::2], parts[2::2], strict=True)]


def follow(folder: Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"TUTORIAL_FOLDER": str(folder), "MPLBACKEND": "Agg"}
    # For so short a work, the JVM's second compiler costs more than it saves.
    environment["SPARK_SUBMIT_OPTS"] = "-XX:TieredStopAtLevel=1"
    return subprocess.run(
        [sys.executable, str(TUTORIAL)], cwd=folder, env=environment, capture_output=True, text=True, timeout=550
    )


def test_every_cell_is_either_text_or_code():
    for kind, text in cells():
        lines = [line for line in text.splitlines() if line]
        assert kind in ("", "markdown") and lines
        assert all(line.startswith("#") for line in lines) == (kind == "markdown"), text


def test_its_links_lead_to_pages_and_headings():
    for page, heading in re.findall(r"\]\(([\w.]+\.md)#?([\w-]*)\)", TUTORIAL.read_text(encoding="utf-8")):
        text = (PROJECT / "docs" / page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
        assert not heading or heading in slugs, (page, heading)


@pytest.mark.long
@pytest.mark.spark
def test_it_runs_and_leaves_what_it_describes(tmp_path):
    ended = follow(tmp_path)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    assert "Traceback" not in ended.stdout and "Warning: " not in ended.stderr, ended.stderr
    for name in FIGURES:
        assert (tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG")
    effusion, again = re.search(r"Effusion: (\S+) by hand, (\S+) in", ended.stdout).groups()
    assert effusion == again
    for words in ("Registered chexscale version 1", "Unlike the films of hospital A", "difference_mean_low"):
        assert words in ended.stdout, words
    assert (tmp_path / "compared/compare.html").exists()


def test_a_command_that_fails_ends_it_with_what_the_command_said(tmp_path):
    # A file where the first command wants a folder.
    (tmp_path / "hospital-a").touch()
    ended = follow(tmp_path)
    assert ended.returncode == 1 and "hospital-a is a file, expected a folder" in ended.stdout
    assert "RuntimeError: the command above ended with code 2; its last lines say why" in ended.stderr
