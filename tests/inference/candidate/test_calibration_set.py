import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from inference.candidate.making.calibration_set import calibration_inputs, choose_images
from training.reading.batches import read_batches


def rows_of(findings: list[list[float]], patients: list[int]) -> pd.DataFrame:
    ids = [f"{index}.png" for index in range(len(findings))]
    return pd.DataFrame({"image_id": ids, "patient_id": patients, "findings": findings})


labels = st.lists(st.sampled_from([0.0, 1.0, float("nan")]), min_size=3, max_size=3)
tables = st.lists(st.tuples(labels, st.integers(0, 8)), min_size=1, max_size=40)


@given(tables, st.integers(1, 50), st.integers(0, 3))
def test_as_many_as_asked_for_each_once_and_the_same_every_time(table, num_images, seed):
    rows = rows_of([list(found) for found, _ in table], [patient for _, patient in table])
    chosen = choose_images(rows, num_images, seed)
    assert len(chosen) == len(set(chosen)) == min(num_images, len(rows))
    assert chosen == choose_images(rows, num_images, seed)
    patients = rows.set_index("image_id")["patient_id"]
    # No patient twice before every patient was taken once.
    first = chosen[: patients.nunique()]
    assert patients[first].nunique() == len(first)


def test_a_rare_finding_is_among_few_images():
    rows = rows_of([[0, 0, 1]] + [[1, 0, 0]] * 500 + [[0, 0, 0]] * 500, list(range(1001)))
    chosen = choose_images(rows, 9, seed=0)
    assert "0.png" in chosen
    frequent = sum(1 <= int(name.split(".")[0]) <= 500 for name in chosen)
    assert 3 <= frequent <= 5


def test_calibration_images_are_training_images_and_the_same_every_time(splits, served):
    def chosen(seed: int) -> np.ndarray:
        (pixels,) = calibration_inputs(splits["train"], 48, seed, served.properties)
        return pixels

    images = chosen(3)
    assert images.shape == (48, 64, 64)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, chosen(3))
    assert not np.array_equal(images, chosen(4))
    stored = {image.tobytes() for batch in read_batches(splits["train"], 64) for image in batch.pixels.numpy()}
    assert {image.tobytes() for image in images} <= stored


def test_calibration_takes_the_whole_split_if_it_is_smaller(splits, served):
    assert len(calibration_inputs(splits["val"], 1000, 0, served.properties)[0]) == splits["val"].rows
