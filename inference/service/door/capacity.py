"""How much work the service takes on at a time: files, and the memory that their bytes hold."""

from collections.abc import Iterator
from contextlib import contextmanager

from inference.service.door.refusals import Refusal

FULL = "send it again in a second, or send fewer files at a time"


class Capacity:
    """Counts what all requests hold together; what would go above a limit is refused with status 503."""

    def __init__(self, max_files: int, max_bytes: int):
        self.max_files, self.max_bytes = max_files, max_bytes
        self.files = self.bytes = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """One request's share, given back at its end."""
        share = Share(self)
        try:
            yield share
        finally:
            self.files -= share.files
            self.bytes -= share.bytes


class Share:
    """What one request holds."""

    def __init__(self, capacity: Capacity):
        self.capacity = capacity
        self.files = self.bytes = 0

    def add_file(self) -> None:
        """Before the file is read. Raises Refusal."""
        if self.capacity.files >= self.capacity.max_files:
            raise Refusal(503, f"{self.capacity.max_files} files are in work already", FULL, {"Retry-After": "1"})
        self.capacity.files += 1
        self.files += 1

    def add_bytes(self, number: int) -> None:
        """As they arrive. Raises Refusal."""
        if self.capacity.bytes + number > self.capacity.max_bytes:
            raise Refusal(503, "uploads in work hold all the memory that they may", FULL, {"Retry-After": "1"})
        self.capacity.bytes += number
        self.bytes += number
