"""A process that decodes files into films, one after the other. A file that does harm can only harm this process.

    python -m inference.service.engine.decoder MEMORY_FD SOCKET_FD MAX_MB        started by decoding.py

The file is in shared memory. A line of JSON on the socket gives its length and the properties of the model. The answer
is a line of JSON, and the film's pixels replace the file in shared memory; of a cropped film, its whole square follows.
"""

import json
import mmap
import resource
import socket
import sys
import traceback
from functools import cache
from pathlib import Path

import numpy as np

# Imported at the start, not with the first DICOM file.
import etl.contract.images.dicom.decode  # noqa: F401
from inference.film.films import NoFilm, read_film
from inference.model.properties import Properties


def main() -> None:
    memory_fd, socket_fd, max_mb = map(int, sys.argv[1:])
    limit_memory(max_mb)
    memory = mmap.mmap(memory_fd, 0)
    with socket.socket(fileno=socket_fd).makefile("rwb") as stream:
        answer = {"ready": True}
        while True:
            stream.write(json.dumps(answer).encode() + b"\n")
            stream.flush()
            line = stream.readline()
            if not line:
                return
            answer = decode(memory, **json.loads(line))


def limit_memory(max_mb: int) -> None:
    """Lets this process, and any that it forks, use max_mb (10**6 bytes) more than now; forbids core dumps."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + max_mb * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decode(memory: mmap.mmap, num_bytes: int, properties: str) -> dict:
    """Describes the film of the file in `memory`, whose pixels replace the file there, or says why there is none."""
    film = read_film(lambda limit: memory[: min(num_bytes, limit)], parse(properties), with_whole=True)
    if isinstance(film, NoFilm):
        reason = film.reason
        if film.bug:
            # Report only the error's kind and place, because its message may quote the file.
            reason = f"cannot be decoded: {type(film.bug).__name__}"
            trace = "".join(traceback.format_tb(film.bug.__traceback__))
            print(f"decoder: {reason}\n{trace}", file=sys.stderr)
        return {"reason": reason, "is_image": film.is_image}
    squares = [film.pixels] if film.whole is None else [film.pixels, film.whole]
    memory[: len(squares) * film.pixels.size] = b"".join(np.ascontiguousarray(one).tobytes() for one in squares)
    stated = film.stated and {"values": vars(film.stated.values), "strange": film.stated.strange}
    size = {"width_px": film.width_px, "height_px": film.height_px}
    return {"fault": film.fault, **size, "stated": stated, "crop": film.crop, "doubts": film.doubts}


@cache
def parse(properties: str) -> Properties:
    return Properties.parse(properties, "the champion")


if __name__ == "__main__":
    main()
