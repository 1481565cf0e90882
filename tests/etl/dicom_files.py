"""DICOM files for the tests, made in memory."""

import io

import numpy as np
import pydicom
from pydicom import uid

from etl.contract.images.dicom.decode import decode_dicom

RAMP = np.array([[0, 1000, 2000, 3000, 4000]], np.uint16)
TWO = np.zeros((2, 2), np.uint8)
# gdcm's encoder aborts on odd sizes.
ENCODERS = {uid.RLELossless: "pydicom", uid.JPEG2000Lossless: "pylibjpeg"}


def build(pixels: np.ndarray, photometric="MONOCHROME2", syntax=uid.ExplicitVRLittleEndian, **tags) -> pydicom.Dataset:
    """A radiograph of these pixels; `tags` replace and add, None removes."""
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.PatientID = uid.ComputedRadiographyImageStorage, "1.2.3", "P7"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3 if pixels.ndim == 3 else 1, photometric
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = pixels.itemsize * 8
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = data + bytes(len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for tag, value in tags.items():
        setattr(dataset, tag, value)
        if value is None:
            del dataset[tag]
    dataset.HighBit = dataset.BitsStored - 1
    return dataset


def table(entries: list[int], first: int, bits: int) -> list[pydicom.Dataset]:
    """A sequence of one lookup table."""
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [len(entries), first, bits], entries
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    return [item]


def written(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def shown(pixels: np.ndarray, **tags) -> list:
    return decode_dicom(written(build(pixels, **tags))).tolist()
