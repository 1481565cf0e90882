"""Which files below a folder nobody put there for reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.contract.clutter import HEATMAP, clutter, find_clutter, heatmap_name

WORKSPACE, TABLE = "in a workspace", "in a Delta table"


def found(*files: str) -> dict[str, str]:
    """The reason of each file that has one."""
    return {file: why for file, why in zip(files, find_clutter(files), strict=True) if why}


@pytest.mark.parametrize(
    "marks",
    [
        ("card.json", "card.html"),
        ("card.json", "mlflow.db"),
        ("card.json", "summary.json"),
        ("evaluation.json", "predictions.parquet", "summary.json"),  # of an ensemble
    ],
)
def test_a_workspace_is_known_by_files_that_its_stages_leave(marks):
    inside = [f"runs/one/{name}" for name in (*marks, "figures/loss.png", "a/b/1.dcm")]
    assert found("runs/1.png", "runs/one2/1.png", *inside) == dict.fromkeys(inside, WORKSPACE)
    for mark in marks:
        assert found("1.png", f"runs/one/{mark}", "runs/one/1.png") == {}
    # The folder that is read may be a workspace itself.
    assert found("1.png", *marks) == {}


def test_a_delta_table_is_known_by_its_log():
    files = ["a/_delta_log/0.json", "a/split=val/1.png", "a/x/1.png"]
    assert found("1.png", "ab/1.png", "_delta_log.png", *files) == dict.fromkeys(files, TABLE)
    assert found("_delta_log/0.json", "1.png") == dict.fromkeys(["_delta_log/0.json", "1.png"], TABLE)


@pytest.mark.parametrize("file", [".a/1.png", "a/.1.png", "__MACOSX/1.png", "a/@eaDir/1.png"])
def test_hidden_files_and_what_systems_leave_keep_their_reason_in_a_workspace(file):
    marks = ("w/card.json", "w/card.html")
    assert found(f"w/{file}", *marks)[f"w/{file}"] == clutter(file)


@given(
    film=st.text(st.characters(exclude_characters="/", exclude_categories=["C"]), max_size=40),
    digest=st.text("0123456789abcdef", min_size=10, max_size=10),
    finding=st.text(st.characters(exclude_characters="/", exclude_categories=["C"]), min_size=1, max_size=40),
)
def test_every_heat_map_is_known_by_its_name(film, digest, finding):
    name = f"maps/{heatmap_name(film, digest, finding)}"
    assert find_clutter([name]) in ([HEATMAP], ["hidden"])


@pytest.mark.parametrize("name", ["film.png-03fb11a2c9-Mass.png", "IM 1.DCM-03fb11a2c9-Pleural%5FThickening.png"])
def test_a_heat_map_of_an_older_release_is_known_by_the_film_s_ending(name):
    assert find_clutter([name, f"deep/er/{name}"]) == [HEATMAP] * 2


@pytest.mark.parametrize(
    "name",
    [
        "patient-1234567890-PA.png",
        "patient.anon-1234567890-PA.png",
        "03fb11a2c9-Mass.png",
        "film-heatmap.png",
        "film.png-03fb11a2c9.png",
        "film-heatmap-03fb11a2c9-Mass.dcm",
        "film-heatmap-03fb11a2c9-Mass/1.png",
    ],
)
def test_other_names_are_no_heat_maps(name):
    assert find_clutter([name]) == [None]
