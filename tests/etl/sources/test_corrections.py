"""Tables of corrected labels: what they do to a manifest and to the table, and what is refused."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from conf.errors import InputError
from conf.settings import Etl
from conf.workspace import Workspace
from etl.contract.storage import locate
from etl.contract.table import read_card
from etl.sources.joining.join import read_sources
from etl.sources.joining.sources import single_source
from etl.writing.publish import publish
from tests.conftest import InlineWorkers
from tests.etl.several_sources import Sources, read
from tests.etl.several_sources import run as run_several
from tests.etl.tables import SMALL, film, rows_of

HEAD = "image,finding,was,label,who,why\n"
ONE = "00000001_001.png"
"""an image with Effusion and Mass"""


class Clinic:
    """The NIH folder of the tests, read with corrections."""

    def __init__(self, folder, tmp_path):
        self.folder, self.tmp_path = folder, tmp_path
        self.workspace = Workspace.at(str(tmp_path / "workspace"))

    def write(self, rows: str, name: str = "judged.csv", head: str = HEAD) -> str:
        path = self.tmp_path / name
        path.write_text(head + rows)
        return str(path)

    def settings(self, *files: str, **etl) -> Etl:
        return Etl(**{**SMALL, "corrections": list(files), **etl})

    def read(self, *files: str, **etl):
        settings = self.settings(*files, **etl)
        return read_sources([single_source(locate(str(self.folder.root)), settings)], settings)

    def corrected(self, rows: str, **etl):
        return self.read(self.write(rows), **etl)

    def run(self, *files: str, workers=None):
        tables, settings = self.workspace.tables(""), self.settings(*files)
        return publish(tables, settings, "nih", self.read(*files), workers or InlineWorkers())


@pytest.fixture
def clinic(nih_folder, tmp_path) -> Clinic:
    return Clinic(nih_folder, tmp_path)


def label(manifest, image: str, finding: str) -> float:
    labels = manifest.images.set_index("image_id").findings[image]
    return float(labels[manifest.findings.index(finding)])


def test_labels_become_what_people_say_and_all_others_stay(clinic):
    before = clinic.read()
    manifest = clinic.corrected(
        f"{ONE},Effusion,1,0,Lee,a fold\n{ONE},Hernia,0,1,Kim,seen\n{ONE},Mass,1,-1,Lee,too dark\n"
    )
    assert (label(manifest, ONE, "Effusion"), label(manifest, ONE, "Hernia")) == (0, 1)
    assert np.isnan(label(manifest, ONE, "Mass"))
    assert label(before, ONE, "Effusion") == 1
    others = manifest.images.image_id != ONE
    pd.testing.assert_frame_equal(manifest.images[others], before.images[others])
    assert "judged.csv: 3 labels corrected, by Lee (2 rows), Kim (1 row)" in manifest.notes


@pytest.mark.parametrize(("uncertain", "value"), [("zero", 0.0), ("one", 1.0)])
def test_an_uncertain_label_is_what_the_setting_says(clinic, uncertain, value):
    manifest = clinic.corrected(f"{ONE},Hernia,0,-1,Lee,perhaps\n", uncertain=uncertain)
    assert label(manifest, ONE, "Hernia") == value


def test_excluded_images_are_left_out_with_who_and_why(clinic):
    manifest = clinic.corrected(f"{ONE},,,exclude,Lee,a hand\n00000002_000.png,Mass,0,Exclude,Lee,a hand\n")
    reasons = manifest.images.set_index("image_id").reason
    assert reasons[ONE] == reasons["00000002_000.png"] == "left out by judged.csv: a hand (Lee)"
    assert reasons.notna().sum() == 2
    assert "judged.csv: 0 labels corrected, 2 images excluded, by Lee (2 rows)" in manifest.notes


def test_what_changes_nothing_is_counted(clinic):
    clinic.folder.rows.append(["absent.png", "Mass", "0", "90", "58", "F", "PA", "64", "64", "1", "1"])
    clinic.folder.train_val.append("absent.png")
    clinic.folder.write_lists()
    manifest = clinic.corrected(
        f"{ONE},Effusion,1,1,Lee,sure\n{ONE},Hernia,1,0,Lee,none\n{ONE},Mass,1,,,\nabsent.png,Mass,1,0,Lee,none\n"
        f"{ONE},Effusion,1,1,Lee,sure\n"
    )
    assert "judged.csv: 0 labels corrected, 1 confirmed, by Lee (2 rows)" in manifest.notes
    idle = "1 already so, 1 of images that are absent or left out, 1 not judged yet"
    assert f"judged.csv: rows that change nothing: {idle}" in manifest.notes


def test_names_of_findings_may_be_synonyms_and_was_may_be_lacking(clinic):
    path = clinic.write(f"{ONE},Pleural Effusion,0,Lee,none\n", head="image,finding,label,who,why\n")
    assert label(clinic.read(path), ONE, "Effusion") == 0


def test_the_findings_are_those_of_the_table(clinic):
    manifest = clinic.corrected(f"{ONE},Fluid,1,0,Lee,none\n", findings=["Fluid=Effusion+Edema", "Mass"])
    assert label(manifest, ONE, "Fluid") == 0
    assert label(manifest, ONE, "Mass") == 1


def test_boxes_of_other_findings_and_images_stay(clinic):
    """NIH has boxes of findings that its label file does not name."""
    box = f"{ONE},Hernia,100,100,200,200\n00000003_001.png,Mass,300,300,50,50\n"
    (clinic.folder.root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + box)
    before, after = (
        clinic.read(),
        clinic.corrected(f"{ONE},Effusion,1,0,Lee,none\n00000003_001.png,Hernia,0,1,Lee,no\n"),
    )
    assert after.images.boxes.tolist() == before.images.boxes.tolist()
    assert sum(map(len, after.images.boxes)) == 10


def test_boxes_of_findings_that_are_no_longer_present_are_dropped(clinic):
    box = f"{ONE},Effusion,100,100,200,200\n{ONE},Mass,300,300,50,50\n"
    (clinic.folder.root / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + box)
    manifest = clinic.corrected(f"{ONE},Effusion,1,0,Lee,none\n")
    boxes = manifest.images.set_index("image_id").boxes[ONE]
    assert [boxes[0], len(boxes)] == [manifest.findings.index("Mass"), 5]
    assert any("1 box dropped" in note for note in manifest.notes)


def test_a_second_file_continues_where_the_first_ended(clinic):
    first = clinic.write(f"{ONE},Effusion,1,0,Lee,none\n", "first.csv")
    second = clinic.write(f"{ONE},Effusion,0,1,Kim,there is\n", "second.csv")
    assert label(clinic.read(first, second), ONE, "Effusion") == 1
    with pytest.raises(InputError, match=r"second.csv line 2: Effusion .* was absent .* is present now in the source"):
        clinic.read(clinic.write(f"{ONE},Effusion,0,-1,Kim,there is\n", "second.csv"))


def test_corrections_of_several_sources_name_images_as_the_table_does(tmp_path):
    sources = Sources(tmp_path)
    path = tmp_path / "judged.csv"
    path.write_text(f"{HEAD}nih/{ONE},Mass,1,0,Lee,none\nhospital/1.png,Rib fracture,1,0,Lee,none\n")
    manifest = read(sources.settings(corrections=[str(path)]))
    assert label(manifest, f"nih/{ONE}", "Mass") == 0
    assert label(manifest, "hospital/1.png", "Rib Fracture") == 0
    card = run_several(sources.settings(corrections=[str(path)]), Workspace.at(str(tmp_path / "workspace"))).card
    assert card.corrections["judged.csv"]["who"] == {"Lee": 2}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("00000099_000.png,Mass,0,1,Lee,seen", "line 2: '00000099_000.png' is no image of the source"),
        (f"{ONE},Massive,0,1,Lee,seen", "line 2: the finding is 'Massive', expected one of Atel.*did you mean Mass"),
        (f"{ONE},,0,1,Lee,seen", "line 2: the finding is ''"),
        (f"{ONE},Mass,0,2,Lee,seen", r"line 2: label is '2', expected 1 \(present\), 0 .* or exclude"),
        (f"{ONE},Mass,0,yes,Lee,seen", "line 2: label is 'yes'"),
        (f"{ONE},Mass,x,1,Lee,seen", r"line 2: was is 'x', expected 1 \(present\), 0 \(absent\) or -1 \(uncertain\):"),
        (f"{ONE},Mass,1,0,,seen", "line 2: who is empty"),
        (f"{ONE},Mass,1,0,Lee,", "line 2: why is empty"),
        (f"{ONE},Mass,1,,Lee,seen", "line 2: label is empty"),
        (f"{ONE},Mass,1,0,Lee,a\n{ONE},Mass,1,1,Kim,b", f"lines 2 and 3: {ONE} gets two labels of Mass"),
        (f"{ONE},Hernia,1,-1,Lee,a", "line 2: Hernia of .* was present when it was judged, and is absent now in the"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(clinic, rows, message):
    with pytest.raises(InputError, match=f"judged.csv {message}"):
        clinic.corrected(f"{rows}\n")


def test_files_that_contradict_each_other_are_refused(clinic):
    first = clinic.write(f"{ONE},Effusion,1,0,Lee,none\n", "first.csv")
    second = clinic.write(f"{ONE},Effusion,,1,Kim,there is\n", "second.csv")
    with pytest.raises(InputError, match=r"second.csv line 2: Effusion .* is absent by first.csv and present by this"):
        clinic.read(first, second)


def test_a_file_that_is_none_is_refused(clinic):
    with pytest.raises(InputError, match=r"no table of corrections at .*none.csv: check --etl.corrections"):
        clinic.read(str(clinic.tmp_path / "none.csv"))
    with pytest.raises(InputError, match="who"):
        clinic.read(clinic.write(f"{ONE},Effusion,0\n", head="image,finding,label\n"))


def test_an_image_keeps_exactly_one_class(tmp_path):
    for number in range(12):
        folder = tmp_path / "source" / "AB"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(film(number))
    path = tmp_path / "judged.csv"
    settings = Etl(format="classes", corrections=[str(path)], **SMALL)

    def corrected(rows: str):
        path.write_text(HEAD + rows)
        return read_sources([single_source(locate(str(tmp_path / "source")), settings)], settings)

    with pytest.raises(InputError, match=r"A/0.png has 0 classes after the corrections"):
        corrected("A/0.png,A,1,0,Lee,not A\n")
    manifest = corrected("A/0.png,A,1,0,Lee,not A\nA/0.png,B,0,1,Lee,B\n")
    assert (label(manifest, "A/0.png", "A"), label(manifest, "A/0.png", "B")) == (0, 1)


def test_a_correction_is_a_new_version_in_which_only_its_rows_differ(clinic):
    first = clinic.run()
    path = clinic.write(f"{ONE},Effusion,1,0,Lee,a fold\n00000002_000.png,,,exclude,Kim,a hand\n")
    second = clinic.run(path)
    assert second.counts == {"new": 0, "changed": 0, "relabelled": 1, "removed": 1}
    assert second.card.delta_version == first.card.delta_version + 1
    before, after = rows_of(clinic.workspace, first.card), rows_of(clinic.workspace, second.card)
    assert set(before.index) - set(after.index) == {"00000002_000.png"}
    untouched = after.index.difference([ONE])
    pd.testing.assert_frame_equal(after.loc[untouched], before.loc[untouched])
    assert after.loc[ONE, "image_64"] == before.loc[ONE, "image_64"]
    assert second.quarantine.reason.tolist() == ["left out by judged.csv: a hand (Kim)"]
    assert not clinic.run(path).committed
    restored = clinic.run()
    assert restored.counts == {"new": 1, "changed": 0, "relabelled": 1, "removed": 0}
    assert restored.card.corrections == {}


def test_the_card_says_who_corrected_what_and_why(clinic):
    path = clinic.write(f"{ONE},Effusion,1,0,Lee,a fold\n{ONE},Hernia,0,1,Kim,seen\n{ONE},Mass,1,1,Kim,seen\n")
    card = clinic.run(path).card
    said = card.corrections["judged.csv"]
    assert said["changed"] == {"Effusion": {"present to absent": 1}, "Hernia": {"absent to present": 1}}
    assert said["who"] == {"Kim": 2, "Lee": 1} and said["why"] == {"seen": 2, "a fold": 1}
    assert (said["confirmed"], said["excluded"], said["open"]) == (1, 0, 0)
    assert said["sha256"] == card.source_sha256["judged.csv"]
    assert read_card(str(clinic.workspace.shards)).corrections == json.loads(json.dumps(card.corrections))


def test_another_reason_for_the_same_label_is_a_new_version_of_the_card_alone(clinic):
    clinic.run(clinic.write(f"{ONE},Effusion,1,0,Lee,a fold\n"))
    again = clinic.run(clinic.write(f"{ONE},Effusion,1,0,Kim,a fold\n"))
    assert again.committed and set(again.counts.values()) == {0}
    assert again.card.corrections["judged.csv"]["who"] == {"Kim": 1}
    assert re.fullmatch("[0-9a-f]{64}", again.card.corrections["judged.csv"]["sha256"])
