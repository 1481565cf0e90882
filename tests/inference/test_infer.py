"""The command line as a user runs it, on a registry whose champion is the small network of conftest.py."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from pydicom import uid

from conf.settings import MODES
from conf.words import RESEARCH_USE
from conf.workspace import Workspace
from inference.files.decoders import FileDecoders, decode_file
from inference.files.image_files import ImageFile
from inference.film.answers import describe_findings
from inference.model.model_files import find_model
from inference.model.registry import promote
from inference.model.restated import write_restated
from inference.model.served_model import open_served
from tests.conftest import png
from tests.etl.dicom_files import build, written
from tests.in_process import Ended, run_here
from tests.inference.conftest import FINDINGS, REPOSITORY, SIZE_PX
from tests.processes import wait_until_group_is_gone
from training.record.store import use_store

SCRIPT = REPOSITORY / "inference" / "infer.py"
ABSENT = ("torch", "torchvision", "pyspark", "deltalake", "petastorm", "sklearn", "matplotlib", "nncf", "onnx")


@pytest.fixture(scope="module")
def registry(new_store, served, fp32, int8, tmp_path_factory) -> Workspace:
    """A registry with one version, laid out as register.py does, champion."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("registry")))
    new_store(workspace)
    source = workspace.artifacts / "1"
    shutil.copytree(fp32.parent, source / "artifacts" / "model")
    served.save(source / "artifacts" / "model" / "torch")
    use_store(workspace)
    client = mlflow.MlflowClient()
    client.create_registered_model("chexscale")
    client.create_model_version("chexscale", source.as_uri())
    promote(workspace, "chexscale", 1, "test")
    return workspace


@pytest.fixture(scope="module")
def films(test_images, tmp_path_factory) -> list[str]:
    """The table's own images as PNG files."""
    folder = tmp_path_factory.mktemp("films")
    for index, image in enumerate(test_images):
        (folder / f"film_{index}.png").write_bytes(png(image))
    return [str(folder / f"film_{index}.png") for index in range(len(test_images))]


@pytest.fixture
def infer(registry, ready_decoders):
    """Runs the command in this process, which has its imports already; its decoders are processes that run already."""

    def run(*arguments: str, workspace: Workspace = registry) -> Ended:
        return run_here(SCRIPT, f"--workspace={workspace.root}", *arguments, columns=120)

    return run


def start(registry: Workspace, *arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), f"--workspace={registry.root}", *map(str, arguments)]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, start_new_session=True, **options)


def answers(ended: Ended) -> list[dict]:
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_a_model_that_answers_unsure_says_so_but_not_of_ten_crops(infer, registry, films, int8, tmp_path):
    folder = registry.artifacts / "unsure" / "artifacts" / "model"
    bounds = {"error_rate": 0.25, "absent_below": [0.5, 0.5, None], "present_above": [0.5, 0.5, None]}
    write_restated("int8", int8, folder / "int8", lambda properties: replace(properties, unsure=bounds))
    use_store(registry)
    version = mlflow.MlflowClient().create_model_version("chexscale", folder.parents[1].as_uri()).version
    ended = infer(*films, "--version", version, "--format", "csv")
    assert ended.code == 0 and "thresholds youden, error rate 0.25." in ended.stderr
    rows = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert {row["answer"] for row in rows if row["finding"] == "Never" and row["familiar"] == "1"} == {"unsure"}
    assert {row["error_rate"] for row in rows} == {"0.25"} and len(rows) == len(films) * len(FINDINGS)
    crops = infer(*films, "--version", version, "--format", "json", "--ten_crop", "true")
    assert "does not answer unsure: its error rate holds for whole images alone" in crops.stderr
    assert all("error_rate" not in answer for answer in answers(crops))


def test_a_file_of_the_table_is_fed_as_the_table_has_it(films, test_images, served):
    for path, image in zip(films, test_images, strict=True):
        np.testing.assert_array_equal(decode_file(ImageFile(path), served.properties, 0).film.pixels, image)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_answers_as_its_model_does(mode, infer, registry, films, test_images):
    """So they differ among each other by what test_register.py allows."""
    ended = infer("--mode", mode, "--format", "json", *films)
    assert ended.code == 0, ended.stderr
    model = open_served(find_model(registry, "chexscale"), mode)
    expected = model.predict(test_images)
    for row, (told, path) in enumerate(zip(answers(ended), films, strict=True)):
        findings = describe_findings(
            model.properties, expected.probabilities[row], expected.distances[row], told["fault"]
        )
        probabilities = [finding["probability"] for finding in told["findings"]]
        assert probabilities == pytest.approx([finding.probability for finding in findings.findings], abs=1e-6)
        assert told["distance"] == pytest.approx(findings.distance, rel=1e-5)
        assert (told["file"], told["model"], told["version"], told["mode"]) == (path, "chexscale", 1, mode)
        assert (told["width_px"], told["note"]) == (SIZE_PX, RESEARCH_USE)


@pytest.mark.parametrize("mode", ["int8", "onnx"])
def test_serving_needs_neither_torch_nor_spark(mode, registry, films, tmp_path):
    """Nor do the decoders: they inherit the path on which these packages cannot be imported."""
    for name in ABSENT:
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is absent')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    process = start(
        registry, "--mode", mode, "--format", "csv", films[0], stdout=subprocess.PIPE, env=environment, cwd=tmp_path
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert len(stdout.splitlines()) == 1 + len(FINDINGS)
    assert stderr.startswith(f"chexscale version 1, {mode.upper()}")
    assert stderr.splitlines()[-1].startswith("Next: ")


def test_csv_has_a_line_per_finding(infer, films):
    ended = infer("--format", "csv", *films[:2], "nowhere.png")
    lines = list(csv.DictReader(io.StringIO(ended.stdout)))
    assert {line["operating_point"] for line in lines} == {"youden"}
    assert [(line["file"], line["finding"]) for line in lines] == [
        *((path, finding) for path in films[:2] for finding in FINDINGS),
        ("nowhere.png", ""),
    ]
    assert 0 < float(lines[0]["probability"]) < 1
    assert lines[0]["called"] == str(int(float(lines[0]["probability"]) >= float(lines[0]["threshold"])))
    # Of the finding that never occurs.
    assert (lines[2]["threshold"], lines[2]["called"]) == ("", "")
    assert lines[-1]["error"] == "no such file or folder"


def test_table_of_one_file_and_of_many(infer, films):
    one, many = infer(films[0]), infer(*films)
    for words in (films[0], "probability", *FINDINGS, "too small: 64x64"):
        assert words in one.stdout
    assert [line.split()[0] for line in many.stdout.splitlines()] == films
    assert (one.code, many.code) == (0, 0)
    assert RESEARCH_USE in one.stderr
    assert "5 of 5 files answered" in many.stderr


def test_options_change_the_answer(infer, films):
    plain, sensitive, crops = (
        answers(infer("--format=json", *options, films[0]))[0]
        for options in ((), ("--threshold=sensitivity_0.9",), ("--ten_crop=true",))
    )
    probabilities, thresholds = (
        lambda told, key=key: [finding[key] for finding in told["findings"]] for key in ("probability", "threshold")
    )
    assert probabilities(sensitive) == probabilities(plain) != probabilities(crops)
    assert thresholds(crops) == thresholds(plain) != thresholds(sensitive)
    assert "sensitivity_0.9" in infer("--format=csv", "--threshold=sensitivity_0.9", films[0]).stdout.splitlines()[1]
    assert (sensitive["operating_point"], crops["ten_crop"]) == ("sensitivity_0.9", True)


def put_bad_files(folder: Path) -> dict[str, str]:
    """Name of each, and words of the reason that is expected."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (200, 200), dtype=np.uint8)
    jpeg, dicom = cv2.imencode(".jpg", pixels)[1].tobytes(), written(build(pixels))
    for name, content in {
        "text.png": b"hello",
        "empty.png": b"",
        "truncated.png": png(pixels)[:-100],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.dcm": dicom[:-1000],
        "no_pixels.dcm": written(build(pixels, PixelData=None, Rows=None)),
    }.items():
        (folder / name).write_bytes(content)
    (folder / "nothing").mkdir()
    os.mkfifo(folder / "pipe.png")
    return {
        "text.png": "no PNG, JPEG, TIFF, WEBP, BMP or DICOM",
        "empty.png": "empty file",
        "truncated.png": "truncated PNG",
        "truncated.jpg": "truncated",
        "truncated.dcm": "cannot be decoded",
        "no_pixels.dcm": "no image",
        "nothing": "no image in this folder",
        "pipe.png": "not a file",
        "nowhere.png": "no such file or folder",
    }


def test_what_cannot_be_read_is_told_and_the_rest_done(infer, films, tmp_path):
    expected = put_bad_files(tmp_path)
    # Nobody may read it, not even root, who runs many a container.
    unreadable = "/proc/self/mem"
    paths = [films[0], *(str(tmp_path / name) for name in expected), unreadable, films[1]]
    ended = infer("--format", "json", *paths)
    assert ended.code == 1
    told = answers(ended)
    assert [answer["file"] for answer in told] == paths
    reasons = {**{str(tmp_path / name): words for name, words in expected.items()}, unreadable: "Input/output error"}
    for answer in told[1:-1]:
        assert reasons[answer["file"]] in answer["error"]
        assert f"{answer['file']}: {answer['error']}" in ended.stderr
    assert "findings" in told[0]
    assert "findings" in told[-1]
    assert f"2 of {len(paths)} files answered" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_kind_of_image_is_answered(infer, tmp_path):
    rng = np.random.default_rng(0)
    grey = (np.linspace(30, 200, 160)[None] + rng.normal(0, 8, (200, 160))).clip(0, 255).astype(np.uint8)
    compressed = build(grey)
    compressed.compress(uid.RLELossless, encoding_plugin="pydicom")
    contents = {
        "one_pixel.png": png(grey[:1, :1]),
        "16_bit.png": png(grey.astype(np.uint16) * 257),
        "colour.png": png(np.dstack([grey] * 3)),
        "jpeg_under_another_name.png": cv2.imencode(".jpg", grey)[1].tobytes(),
        "plain.dcm": written(build(grey)),
        "compressed_without_a_suffix": written(compressed),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(grey).save(tmp_path / "film.tiff")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "DICOMDIR").write_bytes(contents["plain.dcm"])
    ended = infer("--format", "json", tmp_path)
    assert ended.code == 0, ended.stderr
    told = {Path(answer["file"]).name: answer for answer in answers(ended)}
    assert list(told) == sorted([*contents, "film.tiff"])
    assert "2 other files in the folders left out" in ended.stderr
    assert told["one_pixel.png"]["fault"].startswith("too small")
    # DICOM shows the range of the pixels, so its grey values are others.
    for same in (("16_bit.png", "colour.png", "film.tiff"), ("plain.dcm", "compressed_without_a_suffix")):
        assert len({told[name]["distance"] for name in same}) == 1


def test_unlike_the_training_data_gets_no_probabilities_and_no_picture(infer, tmp_path):
    (tmp_path / "black.png").write_bytes(png(np.zeros((200, 200), np.uint8)))
    (answer,) = answers(infer("--format=json", f"--heatmaps={tmp_path / 'out'}", tmp_path / "black.png"))
    assert not answer["familiar"]
    assert {finding["probability"] for finding in answer["findings"]} == {None}
    assert answer["warnings"][0].startswith("unlike the training data")
    assert answer["heatmaps"] == list((tmp_path / "out").iterdir()) == []
    assert "unlike the training data" in infer(tmp_path / "black.png").stdout


def test_heatmaps_are_pictures_of_the_called_findings(infer, films, tmp_path):
    """Equal names in different folders have different pictures."""
    for folder, film in zip(("a", "b"), films, strict=False):
        (tmp_path / folder).mkdir()
        shutil.copy(film, tmp_path / folder / "film.png")
    out = tmp_path / "new" / "out"
    ended = infer("--format", "json", "--heatmaps", out, tmp_path / "a", tmp_path / "b")
    assert ended.stderr.splitlines()[-1] == f"Next: open the pictures in {out}"
    told = answers(ended)
    for answer in told:
        called = [finding["name"] for finding in answer["findings"] if finding["present"]]
        assert len(answer["heatmaps"]) == max(1, len(called))
        assert all(any(f"-{name}." in path for path in answer["heatmaps"]) for name in called)
        for path in answer["heatmaps"]:
            with Image.open(path) as picture:
                assert (picture.format, picture.mode, picture.width) == ("PNG", "RGB", 1024)
    written_paths = [path for answer in told for path in answer["heatmaps"]]
    assert sorted(written_paths) == sorted(map(str, out.iterdir()))


def test_its_own_pictures_are_no_films_of_the_next_run(infer, films, tmp_path):
    shutil.copy(films[0], tmp_path / "film.png")
    others = ""
    for _ in range(2):
        ended = infer("--format", "json", "--heatmaps", tmp_path / "maps", tmp_path)
        (answer,) = answers(ended)
        assert answer["file"] == str(tmp_path / "film.png")
        assert re.search(rf"1 of 1 file answered in [0-9.]+ s{others}\n", ended.stderr)
        others = f", {len(answer['heatmaps'])} other files in the folders left out"
    # Also when they are not told where the pictures are.
    ended = infer("--format", "json", tmp_path)
    assert [answer["file"] for answer in answers(ended)] == [str(tmp_path / "film.png")]
    assert others in ended.stderr
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        ended = infer("--heatmaps", folder, tmp_path)
        assert (ended.code, ended.stdout) == (2, "")
        assert f"{tmp_path} is to be read and to hold the pictures" in ended.stderr


def test_the_caption_of_a_picture_names_the_model_and_the_operating_point(infer, films, tmp_path, monkeypatch):
    drawn, draw = [], ImageDraw.ImageDraw.text

    def text(self, place, words, *style) -> None:
        drawn.append(words)
        draw(self, place, words, *style)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    infer("--threshold", "sensitivity_0.9", "--heatmaps", tmp_path / "out", films[0])
    assert f"chexscale version 1, INT8, thresholds sensitivity_0.9 · {RESEARCH_USE}" in drawn


@pytest.mark.parametrize("address", ["s3://bucket/x.png", "S3://b", "gs://b/x", "https://host/x.png", "s3:/bucket/x"])
def test_an_address_is_refused_before_a_model_is_looked_for(infer, films, tmp_path, address):
    ended = infer(films[0], address, workspace=Workspace.at(str(tmp_path / "none")))
    assert (ended.code, ended.stdout) == (2, "")
    assert f"FILE_OR_FOLDER is {address!r}, expected files and folders of this machine" in ended.stderr
    assert "--scoring.source" in ended.stderr


def test_a_file_address_is_refused_with_the_path(infer):
    assert "write the path itself, such as '/data/x.png'" in infer("file:///data/x.png").stderr


def test_a_home_is_found_where_the_shell_has_not_done_so(infer, films, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(films[0], tmp_path / "x.png")
    ended = infer("--format", "json", "--heatmaps", "~/maps", "~/x.png")
    (answer,) = answers(ended)
    assert (ended.code, answer["file"]) == (0, str(tmp_path / "x.png"))
    assert answer["heatmaps"][0].startswith(str(tmp_path / "maps"))
    monkeypatch.chdir(tmp_path)
    # Decoders that start in this folder.
    monkeypatch.setattr("inference.files.run.FileDecoders", FileDecoders)
    for name in ("~x.png", "s3:x.png"):
        shutil.copy(films[0], name)
        assert infer("--format", "json", name).code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mode", "fp8"), "fp8"),
        ((), "FILE_OR_FOLDER"),
        (("--threshold", "best"), "expected one of youden, sensitivity_0.9"),
        (("--version", "99"), "no version or alias 99 of chexscale in "),
        (("--version", "99"), "known are 1 (@champion)"),
        (("--version", "Champion"), "known are 1 (@champion)"),
        (("--version", "@champion"), "known are 1 (@champion)"),
        (("--heatmaps", os.devnull), "cannot be made"),
        (("--colour", "red"), "colour"),
    ],
)
def test_wrong_usage_ends_with_code_2(options, message, infer, films):
    ended = infer(*options, *([] if not options else films[:1]))
    assert ended.code == 2
    assert message in ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_no_champion_yet_says_what_to_do_and_makes_nothing(infer, films, tmp_path):
    ended = infer(films[0], workspace=Workspace.at(str(tmp_path / "none")))
    assert ended.code == 2
    assert "no version or alias champion of chexscale" in ended.stderr
    assert "run `python inference/register.py`" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_ends_it_quietly(registry, films):
    reading, writing = os.pipe()
    os.close(reading)
    process = start(registry, "--format", "json", *films, stdout=writing)
    os.close(writing)
    _, stderr = process.communicate()
    assert process.returncode == 128 + signal.SIGPIPE
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr


def test_ctrl_c_ends_it_at_once_and_leaves_nothing(registry, films, tmp_path):
    arguments = ("--format", "json", "--heatmaps", tmp_path / "out", *films * 200)
    process = start(registry, *arguments, stdout=subprocess.PIPE)
    assert "findings" in json.loads(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    interrupted = time.perf_counter()
    _, stderr = process.communicate()
    # All thousand take a minute.
    assert time.perf_counter() - interrupted < 15
    assert process.returncode == 130
    assert len(stderr.splitlines()) == 1, stderr
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    wait_until_group_is_gone(process.pid)


def test_pydicom_s_own_files_are_answered_or_refused_with_a_reason(infer):
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    names = (
        "CT_small.dcm",
        "MR_small_RLE.dcm",
        "JPEG2000.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "rtplan.dcm",
        "MR_truncated.dcm",
    )
    ended = infer("--format", "json", *(folder / name for name in names))
    assert ended.code == 1
    assert ["findings" in answer for answer in answers(ended)] == [True, True, True, True, False, False]
    assert "Traceback" not in ended.stderr
