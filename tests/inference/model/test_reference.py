"""Reference films tell whether this machine computes what the one that measured the model did."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from conf.errors import InputError
from conf.settings import MODES
from inference.batch.listing import list_images
from inference.batch.scoring import WorkerModel, score_images
from inference.candidate.making.reference_films import draw_reference
from inference.model.model_files import find_model
from inference.model.reference import FILE, ROUNDING, difference_here, read_reference
from inference.model.served_model import open_served
from tests.in_process import run_here
from tests.inference.conftest import REPOSITORY, SIZE_PX


@pytest.fixture
def found(tabular_champion):
    """A model whose reference tests may change: it is put back."""
    found = find_model(tabular_champion, "chexscale")
    content = (found.folder / FILE).read_bytes()
    yield found
    (found.folder / FILE).write_bytes(content)


def moved(found, by: float) -> None:
    """The model's answers in INT8, and in FP32, were other ones where it was measured."""
    reference = read_reference(found.folder)
    expected = {name: values.copy() for name, values in reference.expected.items()}
    away = by if expected["int8"][3, 1] < 0.5 else -by
    for mode in ("int8", "fp32"):
        expected[mode][3, 1] += away
    replace(reference, expected=expected).save(found.folder)


def differs(found, mode: str) -> str:
    model = open_served(found, mode)
    return difference_here(found.folder, mode, model.predict, model.properties.findings, "--mode")


def test_where_it_was_measured_every_form_answers_as_it_did(found):
    assert {mode: differs(found, mode) for mode in MODES} == dict.fromkeys(MODES, "")
    assert set(read_reference(found.folder).expected) == set(MODES)


def test_reference_films_are_phantoms_as_serving_prepares_them(found):
    model = open_served(found, "fp32")
    drawn = draw_reference({"fp32": model.predict}, model.properties)
    kept = read_reference(found.folder)
    for ours, theirs in zip(drawn.inputs, kept.inputs, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert kept.inputs[0].shape == (8, SIZE_PX, SIZE_PX) and kept.inputs[0].std(axis=(1, 2)).min() > 20
    assert len(np.unique(kept.inputs[0], axis=0)) == 8


def test_other_answers_are_said_with_the_finding_and_the_way_out(found):
    moved(found, 0.3)
    said = differs(found, "int8")
    assert said.startswith(
        "INT8 answers otherwise on this machine than on the one that measured the model: by up to 0.3"
    )
    assert "(Chequers, 8 reference films)" in said and said.endswith("choose --mode fp16 or fp32")
    assert differs(found, "fp16") == ""


def test_what_quantising_changed_is_tolerated(found):
    """INT8 that moved a probability of these films by 0.4 passed the gate: 0.3 more is no surprise."""
    reference = read_reference(found.folder)
    far = {**reference.expected, "fp32": reference.expected["int8"] + 0.4}
    assert replace(reference, expected=far).tolerance("int8") == pytest.approx(0.4)
    assert replace(reference, expected=far).tolerance("fp32") == ROUNDING["fp32"]


def test_an_answer_that_is_no_number_differs(found):
    model = open_served(found, "int8")

    def broken(*inputs):
        answer = model.predict(*inputs)
        return answer._replace(probabilities=np.full_like(answer.probabilities, np.nan))

    assert "by up to inf" in difference_here(found.folder, "int8", broken, model.properties.findings, "--mode")


def test_the_command_line_says_so_and_a_batch_stops(found, tabular_champion, tmp_path):
    moved(found, 0.3)
    (tmp_path / "film.png").write_bytes(b"no film")
    ended = run_here(REPOSITORY / "inference/infer.py", f"--workspace={tabular_champion.root}", tmp_path / "film.png")
    assert "Attention: INT8 answers otherwise on this machine" in ended.stderr
    model = open_served(found, "int8")
    images = list_images("", tabular_champion, model.properties).images.slice(0, 3)

    def scored(mode: str) -> list[dict]:
        worker = WorkerModel(mode, found.variant(mode), 2)
        return list(
            chain.from_iterable(part.to_pylist() for part in score_images(iter(images.to_batches()), 1, worker))
        )

    with pytest.raises(InputError, match="INT8 answers otherwise .* choose --scoring.mode fp16 or fp32"):
        scored("int8")
    assert len(scored("fp16")) == 3


def test_a_damaged_file_is_an_input_error(found):
    content = (found.folder / FILE).read_bytes()
    for damaged in (b"no archive", content[:-30], b""):
        (found.folder / FILE).write_bytes(damaged)
        with pytest.raises(InputError, match="reference.npz is damaged .* copy the model again"):
            read_reference(found.folder)
