"""Which DICOM files are no films of a chest for reading. All formats of sources and served files are asked the same."""

import re
from typing import TYPE_CHECKING

from conf.settings import Dicom
from etl.contract.images.kinds import kind_of
from etl.contract.words import other_body_part, shows_chest

if TYPE_CHECKING:
    from etl.contract.images.dicom.tags import Tags

# How the reasons begin: a table keeps them.
MODALITY, FOR_PROCESSING, BODY_PART, BURNED_IN = "modality ", "for processing", "body part ", "burned-in annotation"


def tags_of(content: bytes) -> "Tags | None":
    """The tags of a file's bytes; None for a file that is not DICOM. Raises BadImage for damaged tags."""
    if kind_of(content) != "DICOM":
        return None
    # Imported here, because pydicom takes long to import and few processes need it.
    from etl.contract.images.dicom.tags import read_tags

    return read_tags(content)


def misfit_of(content: bytes, wanted: Dicom) -> str | None:
    """find_misfit for a file's bytes; None for a file that is not DICOM. Raises BadImage for damaged tags."""
    tags = tags_of(content)
    return find_misfit(tags, wanted) if tags else None


def find_misfit(tags: "Tags", wanted: Dicom) -> str | None:
    """Why this is no film of a chest for reading, such as `modality CT: ...`; None if nothing says so.

    A tag that is empty, or a body part that is not known, says nothing.
    """
    if tags.modality and tags.modality not in wanted.modalities:
        name = tags.modality if re.fullmatch(r"[A-Z0-9_]{1,16}", tags.modality) else "unknown"
        return f"{MODALITY}{name}: not in etl.dicom.modalities ({', '.join(wanted.modalities)})"
    if tags.for_processing:
        return f"{FOR_PROCESSING}: a raw image; its twin for presentation is the one to read"
    if shows_chest(tags.body_part) is False:
        # Only the known word: the tag may hold anything, even a name.
        return f"{BODY_PART}{other_body_part(tags.body_part)}: not the chest"
    if tags.burned_in and not wanted.burned_in:
        return f"{BURNED_IN}: the pixels may show a name; --etl.dicom.burned_in true keeps such films"
    return None


def is_misfit(reason: str) -> bool:
    """Whether this reason is one of find_misfit, which tells no fault of the file."""
    return reason.startswith((MODALITY, FOR_PROCESSING, BODY_PART, BURNED_IN))
