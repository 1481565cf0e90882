"""Names that replace identifiers: the same for the same patient, and of no use without the salt."""

import hmac
import os

from conf.errors import InputError

MIN_SALT_LENGTH = 16
# 80 bits: two of 10 million patients share a name with a chance of 4e-11, two of a billion images of 4e-7.
HIDDEN_DIGITS = 20


def hide(identifier: str, salt: str) -> str:
    """HIDDEN_DIGITS hexadecimal digits instead of an identifier: HMAC-SHA256 keyed with the salt.

    The same for the same identifier and salt; without the salt nobody can try all the patient numbers of a hospital.
    """
    return hmac.digest(salt.encode(), identifier.encode(), "sha256").hex()[:HIDDEN_DIGITS]


def read_salt() -> str:
    """The salt of `hide`, from the environment. Raises InputError where it is missing or too short."""
    salt = os.environ.get("CHEXSCALE_SALT", "")
    if len(salt) < MIN_SALT_LENGTH:
        raise InputError(
            f"CHEXSCALE_SALT has {len(salt)} characters, expected at least {MIN_SALT_LENGTH}: make one with "
            '`python -c "import secrets; print(secrets.token_hex(16))"`, export it, and keep it: with another one, the '
            "same patient gets another name. It is no setting, because settings are logged with every run"
        )
    return salt
