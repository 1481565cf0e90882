import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import InputError
from etl.split import assign_hashed, assign_official, find_leaks, read_list

PATIENTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), unique=True, min_size=1, max_size=80)


def manifest_of(images: list[tuple[int, int]]) -> pd.DataFrame:
    return pd.DataFrame([(f"{p}_{f}.png", str(p)) for p, f in images], columns=["image_id", "patient_id"])


def split_of(images, fraction=0.4, seed=0) -> pd.Series:
    test = {f"{p}_{f}.png" for p, f in images if p % 5 == 0}
    train_val = {f"{p}_{f}.png" for p, f in images if p % 5}
    return assign_official(manifest_of(images), train_val, test, fraction, seed)


@given(PATIENTS, st.floats(0.01, 0.99), st.integers(0, 5))
def test_no_patient_is_in_two_splits(images, fraction, seed):
    split = split_of(images, fraction, seed)
    assert split.notna().all()
    assert find_leaks(manifest_of(images).assign(split=split)[["patient_id", "split"]]) == []


@given(PATIENTS, PATIENTS)
def test_a_patient_stays_where_he_is_when_others_come(images, more):
    together = list(dict.fromkeys([*images, *more]))
    assert list(split_of(together)[: len(images)]) == list(split_of(images))


def test_the_fraction_of_the_patients_validates():
    split = split_of([(patient, 0) for patient in range(10_000)], fraction=0.125)
    assert 0.115 < (split == "val").sum() / (split != "test").sum() < 0.135


def test_a_leak_is_found():
    rows = pd.DataFrame({"patient_id": ["1", "1", "2", "2"], "split": ["train", "train", "val", "test"]})
    assert find_leaks(rows) == ["2"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "no split list at .*test_list.txt"), (b"a.png\n\xff\xfe", "test_list.txt is no UTF-8 text")],
)
def test_a_list_that_cannot_be_read_is_named(tmp_path, content, fault):
    path = tmp_path / "test_list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=fault):
        read_list(path)


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=1), st.integers(0, 3))
def test_hashed_patients_stay_where_they_are_when_others_come(numbers, seed):
    patients = pd.Series([str(number) for number in numbers])
    few, all_of_them = (assign_hashed(part, 0.1, 0.2, seed) for part in (patients[: len(patients) // 2], patients))
    assert few.tolist() == all_of_them[: len(few)].tolist()


def test_hashed_shares_are_those_of_the_settings():
    split = assign_hashed(pd.Series([str(number) for number in range(20_000)]), 0.125, 0.2, 0)
    shares = split.value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.01)
