"""Pseudonyms that replace identifiers: the same for the same patient, and untraceable without the salt."""

import hmac
import os

from conf.errors import InputError

MIN_SALT_LENGTH = 16
# 80 bits: the chance that any two of 10 million patients share a name is 4e-11, of a billion images 4e-7.
HIDDEN_DIGITS = 20


def hide(identifier: str, salt: str) -> str:
    """Replaces an identifier with HIDDEN_DIGITS hexadecimal digits of its HMAC-SHA256, keyed with the salt.

    The same identifier and salt give the same digits. Without the salt nobody can find the identifier by trying all the
    patient numbers of a hospital.
    """
    return hmac.digest(salt.encode(), identifier.encode(), "sha256").hex()[:HIDDEN_DIGITS]


def read_salt() -> str:
    """The salt for `hide`, from the environment. Raises InputError if it is missing or too short."""
    salt = os.environ.get("CHEXSCALE_SALT", "")
    if len(salt) < MIN_SALT_LENGTH:
        raise InputError(
            f"CHEXSCALE_SALT has {len(salt)} characters, expected at least {MIN_SALT_LENGTH}: make one with "
            '`python -c "import secrets; print(secrets.token_hex(16))"`, export it and keep it, because with another '
            "salt every patient gets another name. It is not a setting, because settings are logged with every run"
        )
    return salt
