"""Names of findings that later stages cannot take, or cannot tell apart."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.errors import InputError
from etl.contract.schema import NIH_FINDINGS
from etl.contract.vocabulary import MAX_CHARACTERS, check_vocabulary, metric_name
from etl.sources.published.chexpert import CHEXPERT_FINDINGS

NEXT_STEP = "in the label table or the class folders"


@pytest.mark.parametrize(
    "findings",
    [
        NIH_FINDINGS,
        CHEXPERT_FINDINGS,
        ["0", "1"],
        ["A+", "A-"],
        [
            "Opacity (left)",
            "Opacity (right)",
            "a,b;c{d}(e)=f",
            "h/i:j",
            "[bold]x[/y]",
            '<b>&"q"</b>',
            "$x^2$",
            "_x",
            "..",
        ],
        ["Ödem", "肺炎", "胸腔积液", "مرض", "back\\slash|pipe", "'n'", "%41", "`tick`"],
        ["No Finding", "Pneumonia"],
        ["train", "val", "test", "macro", "image_id", "findings", "finding", "split", "x" * MAX_CHARACTERS],
    ],
)
def test_names_that_every_stage_takes(findings):
    check_vocabulary(findings)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Edema", "edema"),
        ("EDEMA", "Edema"),
        ("Pleural Thickening", "Pleural_Thickening"),
        ("Pleural Thickening", "Pleural  thickening"),
        ("Pleural-Thickening", "Pleural_Thickening"),
        ("COVID-19", "COVID19"),
        ("PleuralEffusion", "Pleural Effusion"),
        ("Ödem", "Odem"),
        ("Ödem", "O\u0308dem"),
        ("Straße", "STRASSE"),
        ("Opacity (left)", "Opacity [left]"),
        ("a/b", "a|b"),
        ("Edema", "Edema"),
        ("ﬁbrosis", "fibrosis"),
    ],
)
def test_two_names_for_one_are_refused_with_both(one, other):
    with pytest.raises(InputError) as raised:
        check_vocabulary(["Mass", one, "Nodule", other])
    said = str(raised.value)
    assert repr(one) in said and repr(other) in said
    assert "Mass" not in said
    assert NEXT_STEP in said


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (" ", "blank at its start or end"),
        ("Edema ", "blank at its start or end"),
        (" Edema", "blank at its start or end"),
        ("Ede\nma", r"'\\n'"),
        ("Ede\tma", r"'\\t'"),
        ("Ede\0ma", r"'\\x00'"),
        ("Pleural\u00a0Effusion", r"'\\xa0'"),
        ("Ede\u200bma", r"'\\u200b'"),
        ("Ede\udcffma", r"'\\udcff'"),
        ("x" * (MAX_CHARACTERS + 1), f"{MAX_CHARACTERS + 1} characters, expected at most {MAX_CHARACTERS}"),
        ("mean", "the mean over the findings"),
        ("Mean", "the mean over the findings"),
        ("all", "all findings together"),
        ("distance", "distance"),
        ("ten_crop_mean", "ten"),
    ],
)
def test_names_that_a_later_stage_takes_for_something_else_are_refused(name, why):
    with pytest.raises(InputError, match=why) as raised:
        check_vocabulary(["Mass", name])
    assert NEXT_STEP in str(raised.value)
    str(raised.value).encode()


def test_the_step_after_a_new_name_can_be_given():
    with pytest.raises(InputError, match=r"'Edema' and 'edema'.*: rename one in .*; then run the ETL again$"):
        check_vocabulary(["Edema", "edema"], "run the ETL again")


@given(st.lists(st.text(max_size=12), max_size=6))
def test_accepted_names_stay_apart_in_every_form_that_a_stage_gives_them(findings):
    try:
        check_vocabulary(findings)
    except InputError:
        return
    columns = [f"probability_{name}" for name in findings]
    metrics = [metric_name(f"val_auroc_{name}") for name in [*findings, "mean"]]
    for names in (columns, metrics):
        assert len({name.casefold() for name in names}) == len({name.lower() for name in names}) == len(names)
    for name in metrics:
        # MLflow 3.17, mlflow.utils.validation._VALID_PARAM_AND_METRIC_NAMES; at most 250 characters.
        assert re.fullmatch(r"[\w\-. :/]+", name) and len(name) <= 250
