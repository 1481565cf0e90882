"""Sends thousands of damaged PNG, JPEG and DICOM files to a service, which must answer each and stay healthy.

    python -m jobs.benchmarks.service.mutations --files 10000                 a service on the workspace runs/demo
    python -m jobs.benchmarks.service.mutations --workspace DIR --seed 7

Each file is one of nine small ones with bytes changed, cut, inserted or repeated; a seed always gives the same files.
The run stops with exit code 1 and keeps the file if the answer is not 200, 413, 415 or 422 with a reason, if it takes
longer than a minute, or if the service has ended. Prints how many files got which answer, and how many decoders were
replaced.
"""

import argparse
import collections
import io
import json
import random
import re
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from rich.console import Console
from rich.table import Table

from conf.errors import run_command
from conf.progress import track
from conf.workspace import Workspace
from jobs.benchmarks.service.servers import SERVES, service_command, started

ANSWERS = (200, 413, 415, 422)
CLIENTS = 4
TIMEOUT_S = 60
SIDE_PX = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workspace", default="runs/demo", help="workspace of a finished register.py (default runs/demo)"
    )
    parser.add_argument("--files", type=int, default=10_000, help="number of files (default 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default 0)")
    arguments = parser.parse_args()
    originals = make_originals()
    names = list(originals)
    counts: collections.Counter[tuple[str, int]] = collections.Counter()
    lock = threading.Lock()
    with started(service_command(Workspace.at(arguments.workspace), "int8"), SERVES, 1) as address:

        def send(number: int) -> None:
            name = names[number % len(names)]
            content = mutate(originals[name], random.Random(f"{arguments.seed} {number}"))
            status = ask(address, content)
            with lock:
                counts[name, status] += 1

        with ThreadPoolExecutor(CLIENTS) as clients:
            for _ in track(clients.map(send, range(arguments.files)), "damaged files", arguments.files, "file"):
                pass
        metrics = read(f"{address}/metrics")
    statuses = sorted({status for _, status in counts})
    table = Table("damaged", *map(str, statuses), title=f"{arguments.files} files, seed {arguments.seed}")
    for name in names:
        table.add_row(name, *(str(counts[name, status]) for status in statuses))
    console = Console()
    console.print(table)
    replaced = re.search(r"^chexscale_decoders_replaced_total (\S+)", metrics, re.MULTILINE)[1]
    memory = float(re.search(r"^process_resident_memory_bytes (\S+)", metrics, re.MULTILINE)[1])
    console.print(f"{float(replaced):.0f} decoders were replaced; the service holds {memory / 1e6:.0f} MB at the end")


def ask(address: str, content: bytes) -> int:
    """Returns the status; ends the run if a damaged file must not get this status or answer."""
    try:
        request = urllib.request.Request(f"{address}/v1/predict", content, {"Content-Type": "application/octet-stream"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            status, body = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    except OSError as error:
        fail(content, f"no answer: {error}")
    answer = json.loads(body)
    if status not in ANSWERS or not (status == 200 or answer["error"]):
        fail(content, f"status {status}: {answer}")
    return status


def fail(content: bytes, why: str) -> None:
    with tempfile.NamedTemporaryFile("wb", prefix="mutated-", delete=False) as file:
        file.write(content)
    print(f"{file.name}: {why}", file=sys.stderr)
    sys.exit(1)


def read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
        return response.read().decode()


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Returns `content` with one to eight changes, most of them where headers are."""
    mutated = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        end = min(len(mutated), rng.choice((64, 400, 2_000, len(mutated))))
        place = rng.randrange(end or 1)
        length = rng.choice((1, 2, 4, 30))
        change = rng.choice(("flip", "random", "extreme", "cut", "insert", "repeat", "end"))
        if change == "flip" and mutated:
            mutated[place] ^= 1 << rng.randrange(8)
        elif change == "random":
            mutated[place : place + length] = rng.randbytes(length)
        elif change == "extreme":
            mutated[place : place + length] = rng.choice((b"\0", b"\xff", b"\x7f")) * length
        elif change == "cut":
            del mutated[place : place + length]
        elif change == "insert":
            mutated[place:place] = rng.randbytes(length)
        elif change == "repeat":
            mutated[place:place] = mutated[place : place + length * 8]
        elif rng.random() < 0.3:
            del mutated[rng.randrange(len(mutated) + 1) :]
    return bytes(mutated)


def make_originals() -> dict[str, bytes]:
    """Makes the undamaged files: name -> content."""
    grey = np.random.default_rng(0).normal(140, 40, (SIDE_PX, SIDE_PX)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(grey)
    files = {
        "PNG, grey": encode(image, "PNG"),
        "PNG, 16 bits": encode(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "PNG, palette": encode(image.convert("P"), "PNG"),
        "JPEG": encode(image, "JPEG"),
        "JPEG, progressive colour": encode(image.convert("RGB"), "JPEG", progressive=True),
    }
    for name, syntax in (("DICOM", None), ("DICOM, RLE", uid.RLELossless), ("DICOM, JPEG 2000", uid.JPEG2000Lossless)):
        dataset = radiograph(grey.astype("<u2") * 16, 12)
        if syntax:
            dataset.compress(syntax)
        files[name] = written(dataset)
    dataset = radiograph(grey, 8)
    dataset.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    dataset.PixelData = encapsulate([files["JPEG"]])
    files["DICOM, JPEG"] = written(dataset)
    return files


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def radiograph(pixels: np.ndarray, bits_stored: int) -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = uid.ComputedRadiographyImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits_stored, bits_stored - 1
    dataset.WindowCenter, dataset.WindowWidth = 2 ** (bits_stored - 1), 2**bits_stored
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return dataset


def written(dataset: pydicom.Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


if __name__ == "__main__":
    run_command(main)
