"""What a second run does: nothing, or just enough."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.settings import Etl, Labels, Quality
from conf.workspace import Workspace
from etl.contract.delta import vacuum
from etl.contract.table import read_card
from etl.sources.read import read_manifest
from etl.writing.publish import Published, publish
from etl.writing.update import _same_labels, needs_rebuild
from tests.conftest import InlineWorkers, NihFolder, NoWorkers, files_of
from tests.etl.tables import ANY, SMALL, add, film, rows_of, run


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(str(tmp_path / "workspace"))


def test_a_second_run_commits_nothing(nih_folder, workspace):
    nih_folder.put("00000001_000.png", b"")
    first = run(nih_folder, workspace)

    again = run(nih_folder, workspace, NoWorkers(), max_quarantined_fraction=0.5)
    assert again.card == first.card
    assert set(again.counts.values()) == {0}
    pd.testing.assert_frame_equal(again.quarantine, first.quarantine)
    assert read_card(str(workspace.shards)) == first.card


def test_a_card_without_a_setting_that_came_later_needs_no_rebuild(nih_folder, workspace):
    card = run(nih_folder, workspace).card
    manifest = read_manifest(nih_folder.root, Etl(**SMALL))
    older = replace(card, settings={name: value for name, value in card.settings.items() if name != "labels"})
    assert not needs_rebuild(older, manifest, Etl(**SMALL))
    assert needs_rebuild(older, manifest, Etl(**SMALL, labels=Labels(readers="any")))


def test_new_images_are_added_and_the_old_files_stay(nih_folder, workspace):
    first = run(nih_folder, workspace)
    before = rows_of(workspace, first.card)
    names = {add(nih_folder, patient, 7, film(patient)) for patient in (1, 4, 30, 31, 32)}
    second = run(nih_folder, workspace)
    assert second.counts == {"new": 5, "changed": 0, "relabelled": 0, "removed": 0}
    assert files_of(workspace, 0) < files_of(workspace, 1)
    after = rows_of(workspace, second.card)
    assert set(after.index) - set(before.index) == names
    pd.testing.assert_frame_equal(after.loc[before.index], before)
    assert second.card.delta_table_id == first.card.delta_table_id
    pd.testing.assert_frame_equal(rows_of(workspace, first.card), before)


def test_removed_changed_and_relabelled_images(nih_folder, workspace):
    first = run(nih_folder, workspace)
    before = rows_of(workspace, first.card)
    (nih_folder.root / "images" / "00000001_000.png").unlink()
    nih_folder.put("00000002_000.png", film(99))
    nih_folder.rows[4][1], nih_folder.rows[5][4] = "Edema", "61"
    nih_folder.write_lists()
    second = run(nih_folder, workspace)
    assert second.counts == {"new": 0, "changed": 1, "relabelled": 2, "removed": 1}
    after = rows_of(workspace, second.card)
    assert set(before.index) - set(after.index) == {"00000001_000.png"}
    assert after.loc["00000003_000.png", "findings"].sum() == 1
    assert after.loc["00000003_001.png", "age_years"] == 61
    assert after.loc["00000002_000.png", "image_64"] != before.loc["00000002_000.png", "image_64"]
    untouched = after.index.difference(["00000002_000.png", "00000003_000.png", "00000003_001.png"])
    pd.testing.assert_frame_equal(after.loc[untouched], before.loc[untouched])
    assert files_of(workspace, 0) & files_of(workspace, 1)
    assert rows_of(workspace, first.card).index.equals(before.index)


def test_a_quarantined_image_is_looked_at_again_when_its_file_changes(nih_folder, workspace):
    good = (nih_folder.root / "images" / "00000001_000.png").read_bytes()
    nih_folder.put("00000001_000.png", good[:100])
    assert run(nih_folder, workspace).card.images_quarantined == 1
    nih_folder.put("00000001_000.png", good)
    second = run(nih_folder, workspace)
    assert (second.card.images_quarantined, second.counts["new"]) == (0, 1)


def test_a_copy_comes_in_when_its_original_leaves(nih_folder, workspace):
    nih_folder.put("00000001_001.png", (nih_folder.root / "images" / "00000001_000.png").read_bytes())
    assert run(nih_folder, workspace).quarantine.image_id.tolist() == ["00000001_001.png"]
    (nih_folder.root / "images" / "00000001_000.png").unlink()
    second = run(nih_folder, workspace)
    assert len(second.quarantine) == 0
    assert "00000001_001.png" in set(second.rows.image_id)


def test_a_new_copy_does_not_displace_what_is_there(nih_folder, workspace):
    run(nih_folder, workspace)
    original = (nih_folder.root / "images" / "00000005_000.png").read_bytes()
    name = add(nih_folder, 0, 0, original)
    assert run(nih_folder, workspace).quarantine.image_id.tolist() == [name]
    assert set(run(nih_folder, workspace).counts.values()) == {0}


def test_other_settings_rebuild_the_table_and_the_old_version_stays(nih_folder, workspace):
    first = run(nih_folder, workspace)
    before = rows_of(workspace, first.card)
    second = run(nih_folder, workspace, sizes_px=[48])
    assert (second.card.delta_version, second.card.sizes_px, second.counts["new"]) == (1, [48], 48)
    assert not files_of(workspace, 0) & files_of(workspace, 1)
    assert "image_64" not in rows_of(workspace, second.card).columns
    pd.testing.assert_frame_equal(rows_of(workspace, first.card), before)


def test_another_merger_of_the_same_name_changes_labels_and_copies_pixels(nih_folder, workspace):
    nih_folder.rows[0][1] = "Nodule"
    nih_folder.write_lists()
    run(nih_folder, workspace, findings=["Lesion=Mass", "Effusion"])
    second = run(nih_folder, workspace, findings=["Lesion=Mass+Nodule", "Effusion"])
    assert second.counts == {"new": 0, "changed": 0, "relabelled": 1, "removed": 0}
    assert (second.card.findings, second.card.delta_version) == (["Lesion", "Effusion"], 1)
    assert second.card.settings["findings"] == ["Lesion=Mass+Nodule", "Effusion"]
    assert rows_of(workspace, second.card).loc["00000001_000.png", "findings"].tolist() == [1, 0]
    same = ["Lesion=nodule+mass", "Effusion=Pleural Effusion"]
    assert not run(nih_folder, workspace, NoWorkers(), findings=same).committed


def test_other_findings_are_another_vocabulary(nih_folder, workspace):
    run(nih_folder, workspace)
    for findings in (["Mass"], ["Mass", "Effusion"], ["Effusion"]):
        with pytest.raises(InputError, match=r"the table has the findings.*keep the table's with --etl.findings"):
            run(nih_folder, workspace, findings=findings)
    rebuilt = run(nih_folder, workspace, rebuild=True, findings=["Mass", "Effusion"]).card
    assert rebuilt.percentages["train"].keys() == {"Mass", "Effusion"}
    # The way out that the message names.
    assert not run(nih_folder, workspace, NoWorkers(), findings=rebuilt.findings).committed


def test_a_check_that_is_switched_on_applies_to_old_images_too(nih_folder, workspace):
    nih_folder.put("00000001_000.png", film(1, 65))
    run(nih_folder, workspace)
    with pytest.raises(InputError, match="47 of 48 images are bad.*too small"):
        run(nih_folder, workspace, quality=Quality(**{**vars(ANY), "min_side_px": 65}))


def test_another_vocabulary_is_refused_unless_a_rebuild_is_set(nih_folder, workspace, tmp_path):
    run(nih_folder, workspace)
    other = tmp_path / "flowers"
    for index in range(24):
        (other / f"class{index % 2}").mkdir(parents=True, exist_ok=True)
        (other / f"class{index % 2}" / f"{index}.png").write_bytes(film(index))

    class Flowers:
        root = other

    options = {"format": "classes", "val_fraction": 0.4, "test_fraction": 0.3}
    with pytest.raises(
        InputError, match=r"the table has the findings Atelectasis.*the source has class0, class1.*rebuild"
    ):
        run(Flowers, workspace, **options)
    assert run(Flowers, workspace, rebuild=True, **options).card.findings == ["class0", "class1"]


def test_a_table_of_another_program_is_left_alone(nih_folder, workspace):
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(str(workspace.shards), pa.table({"a": [1]}))
    for rebuild in (False, True):
        with pytest.raises(InputError, match="the Delta table at .*shards was made by another program"):
            run(nih_folder, workspace, rebuild=rebuild)
    assert DeltaTable(workspace.shards).version() == 0


def test_a_table_that_another_program_has_changed_can_be_rebuilt(nih_folder, workspace):
    from deltalake import DeltaTable

    run(nih_folder, workspace)
    DeltaTable(workspace.shards).delete("split = 'val'")
    with pytest.raises(InputError, match=r"version 1 of .*shards was written by another program \(delta-rs"):
        run(nih_folder, workspace)
    again = run(nih_folder, workspace, rebuild=True)
    assert again.card.delta_version == 2
    assert sorted(rows_of(workspace, again.card).index) == sorted(row[0] for row in nih_folder.rows)


CHANGES = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "change", "relabel", "copy", "spoil", "nothing"]), st.integers(0, 11)),
    min_size=1,
    max_size=6,
)


@settings(max_examples=10)
@given(rounds=st.lists(CHANGES, min_size=1, max_size=3), within=st.booleans(), across=st.booleans())
def test_any_chain_of_updates_ends_where_a_fresh_run_does(tmp_path_factory, rounds, within, across):
    root = tmp_path_factory.mktemp("chain")
    folder = NihFolder(root / "nih", num_patients=12, size_px=16)
    workspace, fresh = Workspace.at(str(root / "workspace")), Workspace.at(str(root / "fresh"))
    quality = Quality(**{**vars(ANY), "duplicates": within, "duplicates_across_patients": across})
    options = {"sizes_px": [32], "max_quarantined_fraction": 1, "quality": quality}
    outcome = run(folder, workspace, **options)
    splits = outcome.rows.set_index("patient_id").split.to_dict()
    for number, changes in enumerate(rounds):
        for kind, index in changes:
            apply(folder, kind, index, 100 * number)
        outcome = run(folder, workspace, **options)
        assert set(run(folder, workspace, **options).counts.values()) == {0}
        now = outcome.rows.set_index("patient_id").split.to_dict()
        assert all(splits.get(patient, split) == split for patient, split in now.items())
        splits |= now
    expected = run(folder, fresh, **options)
    if within or across:
        # Which of two equal images stays depends on which came first.
        check_copies(folder, outcome, within, across)
        assert set(outcome.rows.pixel_hash) == set(expected.rows.pixel_hash)
    else:
        pd.testing.assert_frame_equal(rows_of(workspace, outcome.card), rows_of(fresh, expected.card))
        pd.testing.assert_frame_equal(outcome.quarantine, expected.quarantine)
        assert outcome.card.images == expected.card.images
        assert outcome.card.pixel_std == pytest.approx(expected.card.pixel_std)
    shutil.rmtree(root)


def check_copies(folder: NihFolder, outcome: Published, within: bool, across: bool) -> None:
    """Checks that no two rows are copies of each other, and that the table has the original of every copy."""
    rows, copies = outcome.rows, outcome.quarantine[outcome.quarantine.same_as.notna()]
    assert not within or not rows.duplicated(["pixel_hash", "patient_id"]).any()
    assert not across or rows.groupby("pixel_hash").patient_id.nunique().max() == 1
    assert set(copies.same_as) <= set(rows.image_id)
    for copy, original in zip(copies.image_id, copies.same_as, strict=True):
        assert len({(folder.root / "images" / name).read_bytes() for name in (copy, original)}) == 1


def apply(folder: NihFolder, kind: str, index: int, offset: int) -> None:
    """Makes one change in a folder. Patients 1 to 4 stay as they are, so that no split becomes empty."""
    row = folder.rows[10 + index % (len(folder.rows) - 10)]
    path = folder.root / "images" / row[0]
    if kind == "add":
        patient = 20 + index + offset
        if not any(r[3] == str(patient) for r in folder.rows):
            add(folder, patient, 0, film(patient, 16))
    elif kind == "remove":
        path.unlink(missing_ok=True)
    elif kind == "change":
        path.write_bytes(film(1000 + index + offset, 17))
    elif kind == "relabel":
        row[1] = "Fibrosis" if row[1] != "Fibrosis" else "No Finding"
        folder.write_lists()
    elif kind == "copy":
        # A copy of patient 1, whose images stay, or of the image beside it, which may not stay.
        source = folder.root / "images" / folder.rows[[0, 1, folder.rows.index(row) ^ 1][index % 3]][0]
        if source.exists():
            path.write_bytes(source.read_bytes())
    elif kind == "spoil":
        path.write_bytes(b"spoilt" + bytes(index))


def test_labels_are_compared_with_their_unknown_values():
    columns = {
        "image_id": ["a"] * 4,
        "patient_id": ["1"] * 4,
        "follow_up": pd.array([1, None, None, 2], "Int32"),
        "age_years": pd.array([1.5, None, 3, 2], "Float32"),
        "sex": ["F", None, "M", "F"],
        "view": ["PA"] * 4,
        "findings": [np.float32([np.nan, 1])] * 3 + [np.float32([0, 1])],
        "boxes": [[], [1.0, 0.1, 0.1, 0.2, 0.2], [], []],
        "split": ["train"] * 4,
    }
    one = pd.DataFrame(columns)
    stored = pa.Table.from_pandas(one.assign(boxes=one.boxes.map(np.float32))).to_pandas()
    assert _same_labels(one, stored).tolist() == [True] * 4
    changes = {"follow_up": 2, "sex": "M", "findings": np.float32([np.nan, 0]), "boxes": [0.5] * 5, "split": "val"}
    for name, value in changes.items():
        other = one.copy()
        other.at[0, name] = value
        assert _same_labels(one, other).tolist() == [False, True, True, True], name
    assert not _same_labels(one, one.assign(age_years=pd.array([None, 1, 3, 2], "Float32")))[:2].any()


def test_the_card_of_an_older_version_is_read_across_housekeeping(nih_folder, workspace):
    cards = [run(nih_folder, workspace, seed=seed).card for seed in range(3)]
    assert vacuum(str(workspace.shards), {0, 2}, 0)
    assert [read_card(str(workspace.shards), version) for version in (0, 1, 2, 4, None)] == [*cards, cards[2], cards[2]]
    with pytest.raises(InputError, match="has no version 9"):
        read_card(str(workspace.shards), 9)


def test_a_table_of_an_older_contract_is_rebuilt(nih_folder, workspace, monkeypatch):
    monkeypatch.setattr("etl.writing.publish.CONTRACT", 1)
    first = run(nih_folder, workspace).card
    monkeypatch.undo()
    second = run(nih_folder, workspace)
    assert (second.card.delta_version, second.counts["new"]) == (1, 48)
    assert second.card.delta_table_id == first.delta_table_id


def test_an_image_that_could_not_be_read_is_tried_again(nih_folder, workspace, monkeypatch):
    def refuse(path, *_):
        if path.endswith("00000001_000.png"):
            raise PermissionError(13, "Permission denied")
        return Path(path).read_bytes()

    with monkeypatch.context() as patch:
        patch.setattr("etl.contract.ahead.read_bytes", refuse)
        assert run(nih_folder, workspace).quarantine.reason.tolist() == ["cannot be read: Permission denied"]
    second = run(nih_folder, workspace)
    assert (len(second.quarantine), second.counts["new"]) == (0, 1)


def test_a_copy_does_not_displace_an_image_whose_file_is_rewritten(nih_folder, workspace):
    nih_folder.put("00000006_000.png", (nih_folder.root / "images" / "00000005_000.png").read_bytes())
    run(nih_folder, workspace)
    name = add(nih_folder, 0, 0, (nih_folder.root / "images" / "00000005_000.png").read_bytes())
    for row in nih_folder.rows:
        row[4] = "59"
    nih_folder.write_lists()
    second = run(nih_folder, workspace)
    assert second.quarantine.image_id.tolist() == [name, "00000006_000.png"]
    assert not run(nih_folder, workspace).committed


def test_the_quarantine_follows_a_folder_that_moves(nih_folder, workspace, tmp_path):
    nih_folder.put("00000001_000.png", b"")
    nih_folder.put("00000002_000.png", (nih_folder.root / "images" / "00000002_001.png").read_bytes())
    run(nih_folder, workspace)
    nih_folder.root = nih_folder.root.rename(tmp_path / "moved")
    again = run(nih_folder, workspace, NoWorkers())
    assert again.quarantine.path.tolist() == [
        str(tmp_path / "moved" / "images" / f"0000000{name}.png") for name in ("1_000", "2_001")
    ]


def test_a_copy_is_judged_again_when_its_patient_is_corrected(nih_folder, workspace):
    only_within = Quality(**{**vars(ANY), "duplicates_across_patients": False})
    nih_folder.put("00000001_001.png", (nih_folder.root / "images" / "00000001_000.png").read_bytes())
    assert len(run(nih_folder, workspace, quality=only_within).quarantine) == 1
    nih_folder.rows[1][3] = "2"
    nih_folder.write_lists()
    assert len(run(nih_folder, workspace, quality=only_within).quarantine) == 0


def test_counts_that_change_alone_make_a_version_of_the_same_files(nih_folder, workspace):
    first = run(nih_folder, workspace)
    nih_folder.rows.append(["00000099_000.png", *nih_folder.rows[0][1:3], "99", *nih_folder.rows[0][4:]])
    nih_folder.train_val.append("00000099_000.png")
    nih_folder.write_lists()
    second = run(nih_folder, workspace)
    assert second.committed
    assert (first.card.images_listed, second.card.images_listed, second.card.images_absent) == (48, 49, 1)
    assert files_of(workspace, 0) == files_of(workspace, 1)
    assert not run(nih_folder, workspace).committed


def test_a_table_keeps_its_identity_when_it_is_rebuilt(nih_folder, workspace):
    first = run(nih_folder, workspace).card
    assert run(nih_folder, workspace, rebuild=True).card.delta_table_id == first.delta_table_id


def test_a_moved_table_is_used_where_it_is_now(nih_folder, workspace, tmp_path):
    settings = {"table": str(tmp_path / "one")}
    first = publish_at(nih_folder, workspace, **settings)
    assert first.card.table == str(tmp_path / "one")
    shutil.move(tmp_path / "one", tmp_path / "two")
    second = publish_at(nih_folder, workspace, table=str(tmp_path / "two"))
    assert (second.committed, second.card.table) == (False, str(tmp_path / "two"))


def publish_at(folder: NihFolder, workspace: Workspace, table: str):
    etl = Etl(**{**SMALL, "table": table})
    manifest = read_manifest(folder.root, etl)
    return publish(workspace.tables(table), etl, str(folder.root), manifest, InlineWorkers())


def test_when_all_images_are_bad_the_reasons_are_reported(nih_folder, workspace):
    with pytest.raises(InputError, match=r"48 of 48 images are bad.*too small"):
        run(nih_folder, workspace, quality=Quality(min_side_px=4000))


def test_the_share_of_bad_images_is_of_those_looked_at(nih_folder, workspace):
    for row in nih_folder.rows[20:]:
        row[6] = "AP"
    nih_folder.write_lists()
    for row in nih_folder.rows[:4]:
        nih_folder.put(row[0], b"")
    with pytest.raises(InputError, match="4 of 20 images are bad"):
        run(nih_folder, workspace, views=["PA"])
