"""Limits how much work the service takes on at a time: files, and the memory that their bytes occupy."""

from collections.abc import Iterator
from contextlib import contextmanager

from inference.service.door.refusals import Refusal

FULL = "send it again in a second, or send fewer files at a time"


class Capacity:
    """Counts what all requests hold together; anything beyond a limit is refused with status 503."""

    def __init__(self, max_files: int, max_bytes: int):
        self.max_files, self.max_bytes = max_files, max_bytes
        self.files = self.bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """Lends one request its share, which is given back when the request ends."""
        share = Share(self)
        try:
            yield share
        finally:
            self.files -= share.files
            self.bytes -= share.bytes


class Share:
    """The files and bytes that one request holds."""

    def __init__(self, capacity: Capacity):
        self.capacity = capacity
        self.files = self.bytes = 0

    def add_file(self) -> None:
        """Counts a file before it is read. Raises Refusal if it is one too many."""
        if self.capacity.files >= self.capacity.max_files:
            raise Refusal(503, f"{self.capacity.max_files} files are already in progress", FULL, {"Retry-After": "1"})
        self.capacity.files += 1
        self.files += 1

    def add_bytes(self, number: int) -> None:
        """Counts bytes as they arrive. Raises Refusal if they are too many."""
        if self.capacity.bytes + number > self.capacity.max_bytes:
            raise Refusal(503, "uploads in progress use all the memory set aside for them", FULL, {"Retry-After": "1"})
        self.capacity.bytes += number
        self.bytes += number
