"""The reporting sheet: every item of both checklists is answered from the records, or left to a person."""

import copy
import re
import shutil
from dataclasses import asdict, replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.settings import Quality, Settings, Training
from conf.workspace import Workspace
from etl.contract.quarantine import QUARANTINE, write_quarantine
from etl.contract.version import TableVersion
from inference.candidate.study import describe_registration, describe_table, describe_training
from inference.model.card_text import to_text
from inference.model.reporting.items import PARTS, PEOPLE
from inference.model.reporting.sheet import to_sheet
from tests.conftest import make_card, make_checkpoint
from tests.inference.service.page import TEST_ELSEWHERE, model_card

# Collins et al., BMJ 2024, Table 2.
LETTERS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD = {f"{number}{letter}" for number in range(1, 28) for letter in LETTERS.get(number, [""])}
CLAIM = {str(number) for number in range(1, 45)}
TOPICS = [item.topic for items in PARTS.values() for item in items]
LEFT = "## What a person must still write"
REPORT = {
    "attempts": [{"name": "plain", "calibration_images": 128}],
    "familiarity": {"int8": {"test_familiar": 0.99}},
    "test_auroc": {"baseline": {"mean": {"value": 0.6, "low": 0.5, "high": 0.7}}},
}
# As small as the parts of a card can be: an older table, without quality checks, in a release before this one.
STUDY = {
    "table": {
        **dict.fromkeys(("committed_at", "quarantine_unknown"), ""),
        **{name: {} for name in ("files", "quarantine", "left_out", "not_understood", "groups")},
        **dict.fromkeys(("images_listed", "images_absent", "images_quarantined"), 0),
        "pseudonyms": False,
        "known": copy.deepcopy(model_card()["data"]["positives"]),
        "read_by": {"planted": {"quality": asdict(Quality()), "names_patients": None, "exclusion_lists": 0}},
    },
    "training": describe_training(
        make_checkpoint(settings={"training": {"loss": "binary", "choose_by": "loss", "epochs": 1}}),
        make_card(["A", "B", "C"], [3, 4, 0], [8, 8, 8]),
    ),
    "registration": describe_registration(REPORT),
}
SECRETS = ("/home/doe", "Doe^Jane", "secret-cache")


@pytest.fixture(scope="module")
def study(small_table, tmp_path_factory) -> dict:
    """What is recorded of the small table with three bad images, and of a training on it."""
    workspace = Workspace.at(str(tmp_path_factory.mktemp("study") / "copy"))
    shutil.copytree(small_table[0].root, workspace.root)
    bad = pd.DataFrame({"image_id": list("abc"), "reason": ["one grey value", "one grey value", "too small: 9 x 9"]})
    write_quarantine(str(workspace.quarantine), bad.reindex(columns=QUARANTINE.names))
    settings = asdict(Settings().etl) | {"format": "csv", "exclude": ["/home/doe/out.txt"], "source": "/home/doe"}
    settings["columns"] = asdict(Settings().etl.columns) | {"patient": ""}
    card = replace(
        small_table[1], images_quarantined=3, settings=settings, not_understood={"sex": {"Doe^Jane": 2, "?": 1}}
    )
    trained = {"training": asdict(Training()) | {"cache_dir": "secret-cache", "weights": "/home/doe/best.pt"}}
    checkpoint = make_checkpoint(findings=card.findings, settings=trained, epoch=7, software={"torch": "2.15.0"})
    return {
        "table": describe_table(TableVersion(str(workspace.shards), card), workspace),
        "training": describe_training(checkpoint, card),
        "registration": describe_registration(REPORT),
    }


@pytest.fixture(scope="module")
def card(study, small_table) -> dict:
    """A model card on that table."""
    described, table = model_card(), small_table[1]
    described["model"]["findings"] = table.findings
    described["data"] |= {name: getattr(table, name) for name in ("images", "patients", "positives")}
    return described | {"study": study}


def test_answers_at_an_error_rate_stand_on_card_and_sheet_with_what_is_promised(card):
    share = {"value": 0.05, "low": 0.02, "high": 0.11}
    facts = {"absent_below": None, "present_above": 0.7, "unsure": share}
    facts |= {"present_answered_absent": share, "absent_answered_present": share}
    described = copy.deepcopy(card) | {"unsure": {"error_rate": 0.125, "findings": {"Mass|es": facts}}}
    row = "| Mass\\|es | never | 0.700 | never | 0.05 [0.02, 0.11] | 0.05 [0.02, 0.11] |"
    text, sheet = to_text(described), to_sheet(described)
    assert "error rate 12.50%, test split" in text and row in text
    assert "at most 12.50% are answered absent" in text and "The validation split has also chosen the epoch" in text
    assert "Answers at an error rate of 0.125 of the test split:" in sheet and row in sheet
    parts = {"images": 1, "patients": 1}
    fit = {"site": "hospital-b", "version": 1, "fitted_to": parts, "held_out": parts, "kept": []}
    fitted = to_text(described | {"recalibrated": fit})
    assert "held-out films of hospital-b" in fitted and "has also chosen the epoch" not in fitted
    assert "error rate" not in to_text(card)


def test_the_sheet_says_what_makes_the_probabilities_of_findings_and_of_classes(card):
    assert "Each probability is the sigmoid of (logit + shift) / temperature;" in to_sheet(card)
    classes = card | {"model": card["model"] | {"exclusive": True}}
    assert "Each probability is the softmax of the classes' logits / temperature," in to_sheet(classes)


def halves(sheet: str) -> tuple[str, str]:
    """What the pipeline knows, and what a person must write."""
    known, _, left = sheet.partition(LEFT)
    return known, left


def test_every_item_of_both_checklists_is_on_the_sheet():
    items = [item for group in (*PARTS.values(), PEOPLE) for item in group]
    assert {number for item in items for number in item.claim.split()} == CLAIM
    assert {number for item in items for number in item.tripod.split()} == TRIPOD


def test_what_the_pipeline_knows_is_answered(card):
    known, left = halves(to_sheet(card))
    for words in (
        "| in quarantine: 2 one grey value; 1 too small | 3 |  |",
        "| train split | 53 |",
        "| sex unknown | 27 | 4 | 6 |",
        "This version of the table was written at 20",
        "refused: films of one grey value, films with too many black or white pixels",
        "1 list of films to leave out",
        "A label of -1 counts as unknown.",
        "which counts as unknown: sex 3.",
        "Epoch 7, the best by the mean AUROC of the validation split",
        "optimizer adamw; learning_rate 0.001; schedule one_cycle",
        "Training: torch 2.15.0.",
        "Export and tests: python 3.",
        "rotation up to 7 degrees",
        "1,000 bootstrap resamples of patients",
        "thumbnails of the same films has a mean AUROC of 0.600 [0.500, 0.700]",
        "1.0% of the test split lie above it",
    ):
        assert words in known, words
    assert "**Several sites**" in left and "**External test**" in left and "**Ethics**" in left


def test_a_label_table_that_names_no_patients_is_said_to(card):
    assert "**The label table of made in memory names no patients**" in to_sheet(card)


def test_neither_paths_nor_words_of_the_source_travel_with_the_model(card):
    text = str(card) + to_sheet(card)
    assert not [secret for secret in SECRETS if secret in text]


def test_external_tests_are_answers_once_there_are_any(card):
    known, left = halves(to_sheet(card | {"tested_at": [TEST_ELSEWHERE]}))
    assert "| hospital-b, INT8 | 2026-11-01 | 1,000 | 300 |" in known and "**External test**" not in left


def test_a_recalibrated_model_says_to_whom(card):
    sizes = {"fitted_to": {"images": 40, "patients": 20}, "held_out": {"images": 41, "patients": 21}, "kept": []}
    known, _ = halves(to_sheet(card | {"recalibrated": {"site": "clinic", "version": 3, **sizes}}))
    assert "fitted to clinic: 40 films of 20 patients there; the network is that of version 3" in known
    assert "Thresholds were chosen on films of clinic" in known and "come from the validation split too" not in known


def test_a_quarantine_that_is_gone_is_said_and_does_not_stop_the_registering(small_table, card):
    workspace, table = small_table[0], replace(small_table[1], images_quarantined=3, quarantine_version=9)
    about = describe_table(TableVersion(str(workspace.shards), table), workspace)
    assert about["quarantine"] is None
    described = card | {"study": card["study"] | {"table": about}}
    assert "reasons unknown, because the table of the quarantine can no longer be read" in to_sheet(described)


def test_corrections_and_agreement_are_counted_without_names(small_table, card):
    file = {"changed": {"Coin": {"absent to present": 2}}, "confirmed": 1, "excluded": 3, "who": {"Dr. Lee": 6}}
    agreed = {"negbio": {"images": 9, "findings": {"Coin": {"kappa": 0.5}}}}
    table = replace(small_table[1], corrections={"a.csv": file, "b.csv": file}, agreement=agreed)
    about = describe_table(TableVersion(str(small_table[0].shards), table), small_table[0])
    sheet = to_sheet(card | {"study": card["study"] | {"table": about}})
    assert "1 person judged some of them: 4 labels corrected, 2 confirmed, 6 images left out." in sheet
    assert "Agreement with the labels of negbio (Cohen's kappa) on 9 images: Coin 0.50." in sheet
    assert "Lee" not in sheet + str(about)


def test_weights_of_another_table_may_have_seen_the_test_films(card):
    known = {"source": "first.pt", "delta_table_id": card["data"]["delta_table_id"]}
    for ancestor, said in ((known, False), (known | {"delta_table_id": "x"}, True), ({"source": "first.pt"}, True)):
        sheet = to_sheet(card | {"model": card["model"] | {"ancestors": [ancestor]}})
        assert ("Whether first.pt, from which it started, has seen these films is not known" in sheet) == said


@given(st.sets(st.sampled_from(["table", "training", "registration"])), st.booleans())
def test_what_the_records_lack_is_left_to_a_person(gone, is_measured):
    described = model_card()
    if not is_measured:
        described |= {"subgroups": None, "calibration_error": None, "localisation": {}}
        described["thresholds"] = {name: {"probability": {}} for name in described["thresholds"]}
    described["study"] = {name: part for name, part in STUDY.items() if name not in gone}
    known, left = halves(to_sheet(described))
    for topic in TOPICS:
        assert (f"**{topic}** (" in known) != (f"- [ ] **{topic}** (" in left), topic
    assert all(f"- [ ] **{item.topic}**" in left for item in PEOPLE)
    answered, left_over = map(int, re.findall(r"(\d+) (?:items are|are) (?:answered|left)", known))
    assert answered + left_over == len(TOPICS) + len(PEOPLE)
