"""What the training has seen of another hospital's films."""

from dataclasses import replace

import pytest

from conf.errors import InputError
from conf.settings import Validation
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from inference.external.seen import PATIENT, PIXELS, find_seen, refuse_seen
from tests.inference import toy_properties
from tests.inference.conftest import write_table

MODEL = replace(toy_properties.PROPERTIES, ancestors=[], recalibrated={})
ASK, NO, YES = (Validation(same_patients=answer) for answer in ("ask", "no", "yes"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> TableVersion:
    workspace = Workspace.at(str(tmp_path_factory.mktemp("trained")))
    write_table(workspace)
    return TableVersion.of(workspace)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> TableVersion:
    """Other films, under the names of the same patients."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("elsewhere")))
    write_table(workspace, seed=1, delta_table_id="elsewhere")
    return TableVersion.of(workspace)


@pytest.fixture
def rows(elsewhere):
    rows = elsewhere.rows("train", "val", "test")
    return rows.assign(patient_id="b-" + rows.patient_id)


def test_films_of_others_are_not_seen(trained, elsewhere, rows):
    assert find_seen(MODEL, trained, elsewhere, rows, ASK).isna().all()


def test_a_patient_with_one_known_film_is_left_out_whole(trained, elsewhere, rows):
    known = trained.rows("val").pixel_hash.iloc[3]
    rows.loc[[0, 1, 2], "patient_id"] = "b-somebody"
    rows.loc[1, "pixel_hash"] = known
    reasons = find_seen(MODEL, trained, elsewhere, rows, ASK)
    assert reasons[[0, 1, 2]].tolist() == [PATIENT, PIXELS, PATIENT] and reasons[3:].isna().all()


def test_films_of_the_test_split_are_not_seen_by_the_training(trained, elsewhere, rows):
    rows.loc[0, "pixel_hash"] = trained.rows("test").pixel_hash.iloc[0]
    assert find_seen(MODEL, trained, elsewhere, rows, ASK).isna().all()


def test_names_alike_are_asked_about_and_the_answer_counts(trained, elsewhere, rows):
    alike = trained.rows("train").patient_id.iloc[:2].tolist()
    rows.loc[[0, 1], "patient_id"] = alike
    with pytest.raises(InputError, match=rf"2 patients of the films, such as {alike[0]}.*same_patients"):
        find_seen(MODEL, trained, elsewhere, rows, ASK)
    assert find_seen(MODEL, trained, elsewhere, rows, NO).isna().all()
    assert find_seen(MODEL, trained, elsewhere, rows, YES).dropna().to_dict() == {0: PATIENT, 1: PATIENT}


def test_one_film_of_a_patient_in_both_tables_shows_that_names_mean_the_same_people(trained, elsewhere, rows):
    seen = trained.rows("train")
    rows.loc[[0, 1], "patient_id"] = seen.patient_id.iloc[:2].tolist()
    rows.loc[0, "pixel_hash"] = seen.pixel_hash.iloc[0]
    assert find_seen(MODEL, trained, elsewhere, rows, ASK).dropna().to_dict() == {0: PIXELS, 1: PATIENT}


@pytest.mark.parametrize(
    "shared", [{"source_sha256": {"labels.csv": "0"}}, {"identities": "salt"}, {"delta_table_id": "table"}]
)
def test_tables_of_one_source_name_the_same_people(trained, elsewhere, rows, shared):
    one, other = (replace(table, card=replace(table.card, **shared)) for table in (trained, elsewhere))
    rows.loc[0, "patient_id"] = trained.rows("val").patient_id.iloc[0]
    assert find_seen(MODEL, one, other, rows, ASK).dropna().to_dict() == {0: PATIENT}


def test_tables_with_other_sizes_are_compared_at_the_largest_common_one(trained, rows):
    # As if the training's table also held larger squares: its hashes are of other pixels.
    larger = replace(trained, card=replace(trained.card, sizes_px=[64, 128]))
    same = trained.rows("train").head(4).reset_index(drop=True).assign(pixel_hash="of larger squares", patient_id="x")
    assert (find_seen(MODEL, larger, trained, same, ASK) == PIXELS).all()


def test_what_is_seen_is_refused_by_name(trained, elsewhere, rows):
    refuse_seen(rows.iloc[:0].assign(reason=None))
    with pytest.raises(
        InputError, match=r"seen 2 patients of these films, such as b-train_0000.*\(2 films; 1: the training"
    ):
        refuse_seen(rows.iloc[:2].assign(reason=[PATIENT, PIXELS]))
