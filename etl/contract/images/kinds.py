"""The kinds of image files: which are read, and what other files are."""

import zlib

from etl.contract.images.orientation import PNG_SIGNATURE
from etl.contract.images.tiff.tags import TIFF_SIGNATURES

KINDS = "PNG, JPEG, TIFF, WEBP, BMP or DICOM"
"""the kinds that are read, for people"""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
"""endings of their names, in lower case; the content decides what a file is"""
DICOM_INDEX = "DICOMDIR"
"""name of the index of the DICOM files beside it, which is no image (PS3.10, section 8.6)"""
HEAD_BYTES = 1024
"""how much of a file tells its kind: DICOM's prefix ends at byte 132, and files without it need some more"""
GZIP = b"\x1f\x8b"
JPEG_SIGNATURE = b"\xff\xd8\xff"
# Sizes of the headers that follow a BMP's first 14 bytes, by its versions.
BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)

WEB_PAGE = "a web page, perhaps of a download that failed"
# Place, bytes and name of kinds that are not read, but known from the first bytes of their files.
OTHERS = (
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
    # Their bytes begin those above, too.
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (0, b"#?RADIANCE", "a Radiance image"),
    *((0, b"P%d\n" % number, "a PNM image") for number in range(1, 7)),
    (0, b"AT&TFORM", "a DjVu document"),
    (0, b"SIMPLE  =", "a FITS image"),
    (344, b"n+1\x00", "a NIfTI image"),
    (344, b"ni1\x00", "the header of a NIfTI image"),
    (4, b"n+2\x00\r\n\x1a\n", "a NIfTI image"),
    (4, b"ni2\x00\r\n\x1a\n", "the header of a NIfTI image"),
    (0, b"\x5c\x01\x00\x00", "the header of an Analyze image"),
    (0, b"\x00\x00\x01\x5c", "the header of an Analyze image"),
    (0, b"NRRD", "an NRRD image"),
    (0, b"ObjectType = Image", "a MetaImage"),
    (0, b"NDims = ", "a MetaImage"),
    (0, b"# vtk DataFile", "a VTK file"),
    (0, b"CDF\x01", "a NetCDF file"),
    (0, b"CDF\x02", "a NetCDF file"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"MATLAB ", "a MATLAB file"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"SQLite format 3\x00", "an SQLite database"),
    (0, b"%PDF-", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "an empty ZIP archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, GZIP, "a gzip file"),
    (4, b"1AY&SY", "a bzip2 file"),
    (0, b"\xfd7zXZ\x00", "an xz file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"version https://git-lfs", "a pointer of Git LFS (`git lfs pull` fetches the file itself)"),
    (0, b"<!DOCTYPE html", WEB_PAGE),
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
    from etl.contract.images.dicom.elements import looks_like_dicom

    return "DICOM" if looks_like_dicom(content) else ""


def other_kind(content: bytes) -> str:
    """The name of a kind that is not read, such as `a GIF image`, by the file or its first kilobyte; empty: unknown."""
    for place, signature, name in OTHERS:
        if content[place : place + len(signature)].lower() == signature.lower():
            return _name_with_inside(content, name)
    text = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:HEAD_BYTES].lower()
    if b"<html" in text:
        return WEB_PAGE
    if text.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")):
        return "an SVG drawing" if b"<svg" in text else "an XML document"
    return ""


def describe_other(content: bytes) -> str:
    """Why a file is not read that is of none of the KINDS."""
    if not content:
        return "empty file"
    return f"no {KINDS}: {other_kind(content) or f'starts with {content[:8]!r}'}"


def _name_with_inside(content: bytes, name: str) -> str:
    """The name of an archive's kind with what the beginning of its content is; any other name as it is.

    The names of files in an archive are not shown: they may be those of patients.
    """
    if content.startswith(b"PK\x03\x04"):
        # Length and name of the first file (APPNOTE.TXT of PKWARE, 4.3.7).
        inside = content[30 : 30 + int.from_bytes(content[26:28], "little")]
        return f"{name} of NumPy arrays" if inside.endswith(b".npy") else name
    if not content.startswith(GZIP):
        return name
    try:
        # RFC 1952; a volume compressed so has its header there.
        inside = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, HEAD_BYTES)
    except zlib.error:
        return name
    kind = kind_of(inside)
    what = f"a {kind} file" if kind else other_kind(inside) if not inside.startswith(GZIP) else ""
    return f"{name} with {what}" if what else name
