"""The kinds of image files: which are read, and what other files are."""

from etl.contract.images.orientation import PNG_SIGNATURE
from etl.contract.images.tiff_tags import TIFF_SIGNATURES

KINDS = "PNG, JPEG, TIFF, WEBP, BMP or DICOM"
"""the kinds that are read, for people"""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
"""endings of their names, in lower case; the content decides what a file is"""
DICOM_INDEX = "DICOMDIR"
"""name of the index of the DICOM files beside it, which is no image (PS3.10, section 8.6)"""
HEAD_BYTES = 1024
"""how much of a file tells its kind: DICOM's prefix ends at byte 132, and files without it need some more"""
JPEG_SIGNATURE = b"\xff\xd8\xff"
# Sizes of the headers that follow a BMP's first 14 bytes, by its versions.
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

# Place, bytes and name of kinds of images that people have, and that are not read.
OTHER_IMAGES = (
    (0, b"GIF8", "a GIF image"),
    (0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypavis", "an AVIF image"),
    (4, b"ftyphei", "a HEIC image"),
    (4, b"ftyphev", "a HEIC image"),
    (4, b"ftypmif1", "a HEIC or AVIF image"),
    (4, b"ftypmsf1", "a HEIC or AVIF image"),
    (0, b"8BPS", "a Photoshop image"),
    (344, b"n+1\x00", "a NIfTI image"),
    (344, b"ni1\x00", "the header of a NIfTI image"),
    (0, b"NRRD", "an NRRD image"),
    (0, b"ObjectType = Image", "a MetaImage"),
)
# The same of other files; a video's bytes begin those of AVIF and HEIC images, too.
OTHERS = (
    (4, b"ftyp", "a video"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip file, such as a compressed NIfTI image"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself with `git lfs pull`"),
    (0, b"<!DOCTYPE html", "a web page, perhaps of a download that failed"),
    (0, b"<html", "a web page, perhaps of a download that failed"),
    (0, b"<svg", "an SVG drawing"),
)


def kind_of(content: bytes) -> str:
    """PNG, JPEG, TIFF, WEBP, BMP or DICOM by the file or its first kilobyte, however damaged; empty: another kind."""
    if content.startswith(PNG_SIGNATURE):
        return "PNG"
    # A DICOM file may begin like a TIFF, for programs that read only TIFF.
    if content[128:132] == b"DICM":
        return "DICOM"
    if content.startswith(JPEG_SIGNATURE):
        return "JPEG"
    if content.startswith(TIFF_SIGNATURES):
        return "TIFF"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "WEBP"
    if content.startswith(b"BM") and int.from_bytes(content[14:18], "little") in BMP_HEADERS:
        return "BMP"
    # Imported here, because pydicom takes long to import and few processes need it.
    from etl.contract.images.dicom_file import looks_like_dicom

    return "DICOM" if looks_like_dicom(content) else ""


def other_image(content: bytes) -> str:
    """The name of a kind of image that is not read, such as `a GIF image`; empty for any other file."""
    return _name_of(content, OTHER_IMAGES)


def describe_other(content: bytes) -> str:
    """Why a file is not read that is of none of the KINDS."""
    if not content:
        return "empty file"
    return f"no {KINDS}: {_name_of(content, OTHER_IMAGES + OTHERS) or f'starts with {content[:8]!r}'}"


def _name_of(content: bytes, kinds: tuple[tuple[int, bytes, str], ...]) -> str:
    """The name of the file's kind; empty if it is none of these kinds."""
    for place, signature, name in kinds:
        if content[place : place + len(signature)].lower() == signature.lower():
            return name
    return ""
