"""A table of several sources: its rows and card, and what a second run does when sources come, go or change."""

import json

import numpy as np
import pytest
from deltalake import DeltaTable

from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract.images.lungs.files import describe_network
from etl.contract.labels import missing_labels
from etl.contract.schema import LABELS, SPLITS
from etl.contract.table import read_card
from etl.writing.housekeeping import maintain
from tests.conftest import InlineWorkers, NoWorkers, png
from tests.etl.dicom_files import build, written
from tests.etl.lung_networks import write_network
from tests.etl.several_sources import Sources, run
from tests.etl.tables import add, film, rows_of
from tests.etl.tables import run as run_single

FINDINGS = ["Effusion", "Mass", "Rib Fracture"]


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources(tmp_path)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def test_each_row_says_its_source(sources, workspace):
    done = run(sources.settings(findings=FINDINGS), workspace)
    rows = rows_of(workspace, done.card)
    assert rows.source.value_counts().to_dict() == {"nih": 24, "hospital": 18}
    assert (rows.index.str.split("/").str[0] == rows.source).all()
    hospital = np.stack(rows.findings[rows.source == "hospital"])
    assert np.isnan(hospital[:, 1]).sum() == 6 and set(hospital[:, 0]) == {0, 1}
    assert np.isnan(np.stack(rows.findings[rows.source == "nih"])[:, 2]).all()
    # Any Delta reader sees the column.
    assert "source" in DeltaTable(workspace.shards).schema().to_arrow().names


def test_the_card_counts_each_source_and_all_together(sources, workspace):
    card = run(sources.settings(findings=FINDINGS), workspace).card
    assert list(card.sources) == ["nih", "hospital"]
    for split in SPLITS:
        for what in ("images", "patients"):
            assert sum(part[what][split] for part in card.sources.values()) == getattr(card, what)[split]
        for what in ("positives", "known"):
            total = {name: sum(part[what][split][name] for part in card.sources.values()) for name in FINDINGS}
            assert total == getattr(card, what)[split]
    assert card.sources["hospital"]["percentages"]["train"]["Effusion"] == 50
    assert card.sources["nih"]["known"]["train"]["Rib Fracture"] == 0
    assert card.sources["hospital"]["settings"]["columns"]["split"] == "part"
    assert "sizes_px" not in card.sources["hospital"]["settings"]
    assert card.title == "nih + hospital, Delta version 0"
    assert card.source.split(", ") == [str(sources.nih.root), str(sources.folder / "films" / "hospital")]
    assert read_card(str(workspace.shards)) == card
    assert not missing_labels(card)


def test_one_network_crops_the_films_of_all_sources(sources, workspace, tmp_path):
    network = write_network(tmp_path / "network", 64)
    rng = np.random.default_rng(0)
    for path in (tmp_path / "films").rglob("*.png"):
        picture = rng.integers(120, 220, (128, 128), dtype=np.uint8)
        # What the network takes for lungs.
        picture[30:100, 20:50], picture[30:100, 80:110] = 60, 60
        path.write_bytes(png(picture))
    settings = sources.settings(findings=FINDINGS, crop="lungs", lungs=str(network))
    card = run(settings, workspace).card
    assert card.lungs == describe_network(str(network)) and not sum(card.kept_whole.values())
    crops = rows_of(workspace, card).crop
    assert crops.notna().all() and {tuple(crop[4:]) for crop in crops} == {(128, 128)}
    assert not run(settings, workspace, NoWorkers()).committed


def test_a_single_source_names_its_rows_after_its_folder(nih_folder, workspace):
    done = run_single(nih_folder, workspace)
    assert set(rows_of(workspace, done.card).source) == {"nih"}
    assert (done.card.sources, done.card.title) == ({}, "nih, Delta version 0")


def test_a_second_run_changes_nothing_even_with_moved_scenarios(sources, workspace):
    first = run(sources.settings(findings=FINDINGS), workspace)
    for name in ("nih", "hospital"):
        (sources.folder / "elsewhere").mkdir(exist_ok=True)
        (sources.folder / f"{name}.yaml").rename(sources.folder / "elsewhere" / f"{name}.yaml")
    again = run(sources.settings("elsewhere/nih", "elsewhere/hospital", findings=FINDINGS), workspace, NoWorkers())
    assert (again.committed, again.card) == (False, first.card)


def test_changes_of_one_source_leave_the_others_alone(sources, workspace):
    before = rows_of(workspace, run(sources.settings(findings=FINDINGS), workspace).card)
    name = add(sources.nih, 1, 7, film(7))
    table = sources.folder / "films" / "hospital" / "labels.csv"
    table.write_text(table.read_text().replace("1.png,1,val,1,0,", "1.png,1,val,0,0,"))
    second = run(sources.settings(findings=FINDINGS), workspace)
    assert second.counts == {"new": 1, "changed": 0, "relabelled": 1, "removed": 0}
    after = rows_of(workspace, second.card)
    assert set(after.index) - set(before.index) == {f"nih/{name}"}
    assert after.findings["hospital/1.png"][0] == 0


def test_a_source_is_added_and_taken_away_without_reading_the_others_again(sources, workspace):
    first = run(sources.settings(findings=FINDINGS), workspace)
    sources.put_table("clinic", 9, shift=100)
    clinic = str(sources.folder / "films" / "clinic")
    sources.scenario("clinic", source=clinic, format="csv", columns={"split": "part"})
    second = run(sources.settings("nih", "hospital", "clinic", findings=FINDINGS), workspace)
    assert second.counts == {"new": 9, "changed": 0, "relabelled": 0, "removed": 0}
    assert list(second.card.sources) == ["nih", "hospital", "clinic"]
    third = run(sources.settings(findings=FINDINGS), workspace)
    assert third.counts == {"new": 0, "changed": 0, "relabelled": 0, "removed": 9}
    assert (
        rows_of(workspace, third.card)
        .drop(columns="file_version")
        .equals(rows_of(workspace, first.card).drop(columns="file_version"))
    )


def test_a_source_that_is_read_otherwise_makes_the_table_anew(sources, workspace):
    run(sources.settings(findings=FINDINGS), workspace)
    sources.scenario("nih", source=str(sources.nih.root), val_fraction=0.3, seed=1)
    assert run(sources.settings(findings=FINDINGS), workspace).counts["new"] == 42


def test_a_single_source_becomes_one_of_several_in_a_table_made_anew(sources, workspace):
    run_single(sources.nih, workspace)
    with pytest.raises(InputError, match="the table has the findings"):
        run(sources.settings(), workspace)
    done = run(sources.settings(), workspace, rebuild=True)
    assert done.counts["new"] == 42
    with pytest.raises(InputError, match="the table has the findings"):
        run_single(sources.nih, workspace)


def as_before(workspace: Workspace, rows_per_file: int) -> None:
    """Makes the cards of the table those of an older release, which knows no sources, with this size of files."""
    for log in (workspace.shards / "_delta_log").glob("*.json"):
        actions = [json.loads(line) for line in log.read_text().splitlines()]
        for action in actions:
            if "userMetadata" in action.get("commitInfo", {}):
                card = json.loads(action["commitInfo"]["userMetadata"])
                del card["sources"]
                for name in ("sources", "shared_patients", "findings"):
                    del card["settings"][name]
                card["settings"]["rows_per_file"] = rows_per_file
                action["commitInfo"]["userMetadata"] = json.dumps(card)
        log.write_text("\n".join(map(json.dumps, actions)))


def test_a_table_without_the_column_can_be_joined_and_gets_it_without_decoding(nih_folder, workspace, monkeypatch):
    older = LABELS.remove(LABELS.get_field_index("source"))
    with monkeypatch.context() as patch:
        for module in ("etl.contract.schema", "etl.writing.shard_file"):
            patch.setattr(f"{module}.LABELS", older)
        first = run_single(nih_folder, workspace, rows_per_file=5)
    as_before(workspace, rows_per_file=11)
    before = rows_of(workspace, first.card)
    assert "source" not in before.columns
    card = read_card(str(workspace.shards))
    assert (card.sources, card.findings) == ({}, first.card.findings)
    done = maintain(workspace.tables(""), Etl(), set(), 0, InlineWorkers())
    assert done.joined > 1
    assert done.rows.source.isna().all()
    assert rows_of(workspace, done.card).drop(columns="source", errors="ignore").equals(before)
    second = run_single(nih_folder, workspace)
    assert second.counts == {"new": 0, "changed": 0, "relabelled": 48, "removed": 0}
    after = rows_of(workspace, second.card)
    assert set(after.source) == {"nih"}
    assert after.drop(columns="source").equals(before)
    assert "source" in DeltaTable(workspace.shards).schema().to_arrow().names
    assert not run_single(nih_folder, workspace, NoWorkers()).committed


def test_each_source_keeps_its_own_dicom_films(sources, workspace):
    for name, burned_in in (("strict", False), ("open", True)):
        place = sources.folder / "films" / name
        place.mkdir()
        (place / "labels.csv").write_text("image,patient,Effusion\n1.dcm,1,1\n2.dcm,2,0\n")
        for number in (1, 2):
            pixels = np.random.default_rng(number + 10 * burned_in).integers(0, 4096, (64, 64), dtype=np.uint16)
            marked = "YES" if number == 1 else "NO"
            tags = {"Modality": "DX", "BurnedInAnnotation": marked, "BitsStored": 12}
            (place / f"{number}.dcm").write_bytes(written(build(pixels, **tags)))
        sources.scenario(name, source=str(place), format="csv", dicom={"burned_in": burned_in})
    done = run(sources.settings("nih", "strict", "open", findings=["Effusion"]), workspace)
    assert done.quarantine.image_id.tolist() == ["strict/1.dcm"]
    assert {"open/1.dcm", "open/2.dcm", "strict/2.dcm"} <= set(done.rows.image_id)
    assert done.card.settings["dicom"]["burned_in"] is True
    assert not run(sources.settings("nih", "strict", "open", findings=["Effusion"]), workspace, NoWorkers()).committed


def test_a_dicom_source_comes_to_a_table_and_goes(sources, workspace, monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    place = sources.folder / "films" / "dicom"
    place.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 4096, (64, 64), dtype=np.uint16)
        tags = {"PatientID": f"HOSP-{number}", "SOPInstanceUID": f"1.2.{number}", "Modality": "DX", "BitsStored": 12}
        (place / f"{number}.dcm").write_bytes(written(build(pixels, **tags)))
    sources.scenario("dicom", source=str(place), format="dicom")
    (sources.nih.root / "images" / "00000001_000.png").write_bytes(b"")
    first = run(sources.settings(findings=FINDINGS), workspace)
    assert first.quarantine.path[0].endswith("00000001_000.png")
    second = run(sources.settings("nih", "hospital", "dicom", findings=FINDINGS), workspace)
    assert second.counts["new"] == 8
    assert second.quarantine.path.isna().all()
    assert not second.rows.image_id.str.contains("HOSP").any()
    third = run(sources.settings(findings=FINDINGS), workspace)
    assert third.counts["removed"] == 8
    monkeypatch.setenv("CHEXSCALE_SALT", "fedcba9876543210")
    run(sources.settings("nih", "hospital", "dicom", findings=FINDINGS), workspace)
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    with pytest.raises(InputError, match="another CHEXSCALE_SALT"):
        run(sources.settings("nih", "hospital", "dicom", findings=FINDINGS), workspace)


def test_the_same_film_of_two_sources_is_a_copy_of_another_patient(sources, workspace):
    film_file = (sources.nih.root / "images" / "00000001_000.png").read_bytes()
    (sources.folder / "films" / "hospital" / "0.png").write_bytes(film_file)
    quarantine = run(sources.settings(findings=FINDINGS), workspace).quarantine
    assert quarantine.image_id.tolist() == ["nih/00000001_000.png"]
    assert quarantine.same_as.tolist() == ["hospital/0.png"]


def test_what_a_table_lacks_is_changed_in_the_scenarios(sources, workspace):
    table = sources.folder / "films" / "hospital" / "labels.csv"
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *(",".join([*line.split(",")[:3], "1", "", ""]) for line in lines)]))
    card = run(sources.settings("hospital", findings=["Effusion"]), workspace).card
    said = missing_labels(card)
    assert "every known label is 1" in said
