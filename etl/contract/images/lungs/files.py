"""The files of a lung network, which inference/lungs.py exports. Imports no large library.

A lung network is a folder with model.xml, model.bin and lungs.json: size_px, the side of its input; square, how films
are made square for it; precision; sha256, that of both files of the graph; and what is known of its training.
"""

import hashlib
import json
from pathlib import Path

from conf.errors import InputError

GRAPH, WEIGHTS, ABOUT = "model.xml", "model.bin", "lungs.json"
FORMAT = 2
"""increased when a network is trained otherwise, or another part of a film counts as the lungs"""
FINDER = "finder"
"""in place of a folder: the classifiers of finder.py"""


def describe_network(folder: str) -> dict:
    """The content of a folder's lungs.json. Raises InputError if there is none, or if it describes another graph."""
    try:
        about = json.loads((Path(folder) / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}, expected {FORMAT}")
        if digest_of(Path(folder)) != about["sha256"]:
            raise ValueError(f"{GRAPH} and {WEIGHTS} are not those that it describes")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{folder} is no folder of a lung network of this release ({ABOUT}: {error!s:.200}): give the folder that "
            "`python inference/lungs.py` names, which every worker of a cluster must see, or `finder`"
        ) from error
    return about


def describe_lungs(lungs: str) -> dict:
    """What the card says of what finds the lungs. lungs: etl.lungs; empty for `finder`. Errors: describe_network's."""
    return {} if lungs == FINDER else describe_network(lungs)


def digest_of(folder: Path) -> str:
    """SHA-256 of both files of the graph, in hexadecimal."""
    digest = hashlib.sha256()
    for name in (GRAPH, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
