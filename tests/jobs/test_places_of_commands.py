"""Each command refuses a place that a library below cannot take before it works, and leaves nothing behind."""

import runpy
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CASES = [
    ("etl/preprocess.py", "workspace", "{}/NIH [2017]", "choose another, such as '{}/NIH _2017_'"),
    ("etl/preprocess.py", "etl.table", "{}/a^b", "choose another, such as {}/a_b"),
    ("etl/preprocess.py", "etl.table", "gs://bucket/x", "pip install 'chexscale[gcs]'"),
    ("etl/preprocess.py", "etl.source", "abfss://c@acc.dfs.core.windows.net/x", "pip install 'chexscale[azure]'"),
    ("etl/preprocess.py", "etl.source", "foo://bucket", "known are s3://"),
    ("etl/preprocess.py", "etl.exclude", '["foo://bucket/x"]', "known are s3://"),
    ("jobs/maintain.py", "etl.table", "{}/a|b", "choose another, such as {}/a_b"),
    ("inference/predict.py", "scoring.output", "{}/a\\b", "choose another, such as {}/a_b"),
    ("inference/predict.py", "scoring.output", "az://c/x", "pip install 'chexscale[azure]'"),
    ("inference/predict.py", "scoring.source", "foo://bucket", "known are s3://"),
    ("inference/infer.py", "workspace", "{}/a#b", "choose another, such as {}/a_b"),
    ("inference/serve.py", "workspace", "{}/a?b", "choose another, such as {}/a_b"),
    ("training/train.py", "workspace", "{}/50%20", "choose another, such as {}/50_"),
    (
        "training/train.py",
        "training.cache_dir",
        "s3://bucket/cache",
        "expected a folder of this machine: a cache lies on",
    ),
    ("training/ensemble.py", "ensemble.members", '["{}/a[", "{}/b"]', "choose another, such as {}/a_"),
]


@pytest.mark.parametrize(("script", "setting", "place", "expected"), CASES)
def test_a_command_says_what_to_do(script, setting, place, expected, tmp_path, monkeypatch, capsys):
    place, expected = (text.replace("{}", str(tmp_path)) for text in (place, expected))
    words = [f"--workspace={tmp_path / 'new'}"] if setting != "workspace" else []
    own = [str(tmp_path / "film.png")] if script == "inference/infer.py" else []
    monkeypatch.setattr(sys, "argv", [script, *words, f"--{setting}={place}", *own])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROJECT / script), run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"error: {setting} is ") and expected in said
    assert not any(tmp_path.iterdir())
