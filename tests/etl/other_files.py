"""Files of kinds that are not read, made in memory, and what is to be said of them."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable

import numpy as np
from scipy.io import savemat

from tests.etl.dicom_files import build, written
from tests.etl.image_files import encoded, png_of

RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (24, 1))


def into(save: Callable, *content) -> bytes:
    """What a library's function saves into a file."""
    file = io.BytesIO()
    save(file, *content)
    return file.getvalue()


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr(name, b"")
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        made.addfile(tarfile.TarInfo("film.png"))
    return file.getvalue()


NIFTI = b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(8) + RAMP.tobytes()
SVG = b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>'
# Ending -> content, and a part of the name of its kind.
OTHERS = {
    "gif": (encoded(RAMP, "GIF"), "a GIF image"),
    "jp2": (encoded(RAMP, "JPEG2000"), "a JPEG 2000 image"),
    "j2k": (encoded(RAMP, "JPEG2000", no_jp2=True), "a JPEG 2000 image"),
    "avif": (encoded(np.dstack([RAMP] * 3), "AVIF"), "an AVIF image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
    "mp4": (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
    "mkv": (b"\x1aE\xdf\xa3\x01\0\0\0", "a video"),
    "jxl": (b"\xff\x0a\x10\x10", "a JPEG XL image"),
    "boxed.jxl": (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    "exr": (b"\x76\x2f\x31\x01\x02\0\0\0channels\0chlist\0", "an OpenEXR image"),
    "pgm": (encoded(RAMP, "PPM"), "a PNM image"),
    "psd": (b"8BPS\0\x01" + bytes(20), "a Photoshop image"),
    "pdf": (encoded(RAMP, "PDF"), "a PDF document"),
    "zip": (zipped("film.png"), "a ZIP archive"),
    "empty.zip": (b"PK\x05\x06" + bytes(18), "an empty ZIP archive"),
    "npz": (into(np.savez, RAMP), "a ZIP archive of NumPy arrays"),
    "npy": (into(np.save, RAMP), "a NumPy array"),
    "mat": (into(savemat, {"film": RAMP}), "a MATLAB file"),
    "h5": (b"\x89HDF\r\n\x1a\n\0\0\0\0", "an HDF5 file"),
    "nii": (NIFTI, "a NIfTI image"),
    "nii2.nii": (b"\x1c\x02\0\0n+2\0\r\n\x1a\n" + bytes(540), "a NIfTI image"),
    "hdr": (b"\x5c\x01\0\0" + bytes(344), "the header of an Analyze image"),
    "nii.gz": (gzip.compress(NIFTI), "a gzip file with a NIfTI image"),
    "named.gz": (into(lambda file: gzip.GzipFile("Mr Smith", "wb", 9, file).write(NIFTI)), "a gzip file"),
    "dcm.gz": (gzip.compress(written(build(RAMP))), "a gzip file with a DICOM file"),
    "png.gz": (gzip.compress(png_of(RAMP)), "a gzip file with a PNG file"),
    "mha": (b"ObjectType = Image\nNDims = 2\n", "a MetaImage"),
    "mhd": (b"NDims = 2\nDimSize = 3 3\n", "a MetaImage"),
    "nrrd": (b"NRRD0004\ntype: short\n", "an NRRD image"),
    "tar": (tarred(), "a tar archive"),
    "tar.gz": (gzip.compress(tarred()), "a gzip file with a tar archive"),
    "csv.gz": (gzip.compress(b"image,label"), "a gzip file"),
    "cut.gz": (gzip.compress(NIFTI)[:12], "a gzip file"),
    "gz.gz": (gzip.compress(gzip.compress(NIFTI)), "a gzip file"),
    "damaged.gz": (b"\x1f\x8b\x08\0\0\0\0\0\0\0" + b"\xff" * 20, "a gzip file"),
    "bz2": (bz2.compress(NIFTI), "a bzip2 file"),
    "xz": (lzma.compress(NIFTI), "an xz file"),
    "rar": (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "a 7z archive"),
    "svg": (SVG, "an SVG drawing"),
    "plain.svg": (b"\xef\xbb\xbf\n<svg/>", "an SVG drawing"),
    "vtu": (b'<?xml version="1.0"?>\n<VTKFile/>', "an XML document"),
    "xhtml": (b'<?xml version="1.0"?>\n<html xmlns=""/>', "a web page"),
    "html": (b"<!doctype html><html>", "a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
}
