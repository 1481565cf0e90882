import pytest

from conf.errors import InputError
from etl.contract.schema import NIH_FINDINGS
from etl.contract.vocabulary import check_vocabulary
from etl.sources.chexpert import CHEXPERT_FINDINGS


@pytest.mark.parametrize(
    ("one", "other"), [("Mass", "mass"), ("Opacity (left)", "Opacity [left]"), ("A/B", "A,B"), ("Größe", "Gro\u0308ße")]
)
def test_names_that_would_share_a_metric_or_a_column_are_refused(one, other):
    with pytest.raises(InputError, match="would share a metric and a column: rename one") as refused:
        check_vocabulary(["Edema", one, other], "the table")
    assert repr(one) in str(refused.value) and repr(other) in str(refused.value)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\tb", "a\x00", "\u202ea"])
def test_names_that_cannot_be_shown_are_refused(name):
    with pytest.raises(InputError, match="expected visible characters in one line"):
        check_vocabulary(["Edema", name], "the table")


def test_the_usual_vocabularies_are_kept():
    for findings in (NIH_FINDINGS, CHEXPERT_FINDINGS, ["肺炎", "Opacity (left)", "Opacity, right"]):
        check_vocabulary(findings, "the table")
