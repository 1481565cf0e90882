"""Damaged tables of published collections: each gives a message, or a manifest that adds up."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import InputError
from conf.settings import Etl, Labels
from etl.sources.read import read_manifest
from etl.sources.split import find_leaks
from tests.conftest import InlineWorkers
from tests.etl.sources.published import test_challenges, test_experts, test_mimic, test_padchest, test_vindr
from tests.etl.sources.test_hostile_tables import edit

PIECES = [b"", b",", b'"', b"\r", b"\n", b"\xef\xbb\xbf", b"\x00", b"\xff\xfe", b"['", b"']", b"-1", b"nan", b"1e309"]
PIECES += [b"99999999999999999999", b"0", b"No finding", b"train", b"HEDGE", b" ", b"\t", b";", "ü".encode(), b"../x"]
KINDS = ["insert", "replace", "cut", "repeat line", "drop line", "swap lines"]
MAKE = {
    "padchest": test_padchest.make,
    "vindr": test_vindr.physionet,
    "mimic": test_mimic.make,
    "rsna": test_challenges.rsna,
    "siim": lambda folder: test_challenges.siim(folder, [["1.2.0", "-1"], ["1.2.1", "5 3 7 2"]]),
    "experts": test_experts.make,
}
EDITS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(KINDS), st.floats(0, 1), st.floats(0, 1), st.sampled_from(PIECES)),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return {form: make(tmp_path_factory.mktemp(form)) for form, make in MAKE.items()}


@pytest.mark.parametrize("form", MAKE)
@settings(max_examples=60)
@given(edits=EDITS, split=st.sampled_from(["source", "hashed"]), readers=st.sampled_from(["majority", "any", "R1"]))
def test_a_damaged_table_is_refused_with_a_message_or_read_in_full(form, folders, edits, split, readers):
    tables = sorted(folders[form].rglob("*.csv"))
    original = [table.read_bytes() for table in tables]
    try:
        for number, *change in edits:
            table = tables[number % len(tables)]
            table.write_bytes(edit(table.read_bytes(), *change))
        etl = Etl(format=form, split=split, labels=Labels(readers=readers, min_images=1))
        manifest = read_manifest(folders[form], etl, InlineWorkers())
    except InputError as error:
        assert len(str(error)) > 40
        return
    finally:
        for table, content in zip(tables, original, strict=True):
            table.write_bytes(content)
    assert manifest.listed == len(manifest.images) + manifest.absent
    assert manifest.images.findings.map(len).eq(len(manifest.findings)).all()
    assert manifest.images.boxes.map(lambda boxes: len(boxes) % 5 == 0 and all(0 <= n <= 40 for n in boxes)).all()
    assert not find_leaks(manifest.images[["patient_id", "split"]].dropna())
