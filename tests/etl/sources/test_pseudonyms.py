"""How patients and images of DICOM files are named."""

import pytest

from conf.errors import InputError
from etl.sources.pseudonyms import hide, read_salt


def test_hidden_names_depend_on_the_salt():
    assert hide("P7", "a" * 16) == hide("P7", "a" * 16)
    assert len({hide(patient, salt) for patient in ("P7", "P8") for salt in ("a" * 16, "b" * 16)}) == 4
    # RFC 4231, case 2, cut to 80 bits.
    assert hide("what do ya want for nothing?", "Jefe") == "5bdcc146bf60754e6a04"


def test_the_salt_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcdef")
    assert read_salt() == "0123456789abcdef"
    monkeypatch.setenv("CHEXSCALE_SALT", "0123456789abcde")
    with pytest.raises(InputError, match="15 characters.*secrets.token_hex.*logged with every run"):
        read_salt()
    monkeypatch.delenv("CHEXSCALE_SALT")
    with pytest.raises(InputError, match="0 characters"):
        read_salt()
