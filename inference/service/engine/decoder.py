"""A process that turns files into films, one after the other: what a file does to its decoder stays in here.

    python -m inference.service.engine.decoder MEMORY_FD SOCKET_FD MAX_MB        started by decoding.py

The file is in shared memory, a line of JSON on the socket says how long it is and for which model; the answer is a line
of JSON, and the film's pixels stand where the file was.
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

# Imported here, not with the first DICOM file.
import etl.contract.images.dicom  # noqa: F401
from etl.contract.images.decode import BadImage, begins_like_image
from inference.film.films import load_film
from inference.model.properties import Properties

# It may quote the file, and a line is read up to 64 KiB.
MAX_REASON = 300
TOO_MUCH_MEMORY = "cannot be decoded in the memory that a file may take"


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
    """Lets this process, and those that it forks, have so much more than they have now; no memory dumps."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + max_mb * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def decode(memory: mmap.mmap, num_bytes: int, properties: str) -> dict:
    """What is to be said of the file in `memory`: its film, whose pixels replace it there, or why it has none."""
    try:
        content = memory[:num_bytes]
        film = load_film(content, parse(properties))
    except BadImage as error:
        return {"reason": str(error)[:MAX_REASON], "is_image": begins_like_image(content)}
    except MemoryError:
        return {"reason": TOO_MUCH_MEMORY, "is_image": True}
    except Exception as error:
        # A bug: where it is, without the message, which may quote the file.
        print(f"decoder: {type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}", file=sys.stderr)
        return {"reason": "cannot be decoded", "is_image": True}
    memory[: film.pixels.size] = np.ascontiguousarray(film.pixels).tobytes()
    return {"fault": film.fault, "width_px": film.width_px, "height_px": film.height_px}


@cache
def parse(properties: str) -> Properties:
    return Properties.parse(properties, "the champion")


if __name__ == "__main__":
    main()
