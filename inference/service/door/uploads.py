"""Reads the files of a request as they arrive, so that memory never holds more than the limits allow."""

import asyncio
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from conf.settings import Serving
from inference.service.door.capacity import Share
from inference.service.door.parameters import parameters_of
from inference.service.door.refusals import MAX_SHOWN, Refusal

MULTIPART = "multipart/form-data"
RAW = (
    *("image/png", "image/jpeg", "image/tiff", "image/webp", "image/bmp"),
    *("application/dicom", "application/octet-stream"),
)
"""content types of a body that is one file; the file's content, not this type, decides what it is"""
MB = 10**6
# Longer names are cut; a name is only repeated in the answer.
MAX_NAME = 255


@dataclass(frozen=True)
class Upload:
    """One file as it was sent."""

    name: str
    """as the sender gave it; only for the answer, never for a log"""
    chunks: list[bytes | memoryview]
    """pieces as they arrived; joined only where the decoder reads them"""


async def read_uploads(request: Request, field: str, max_files: int, serving: Serving, share: Share) -> list[Upload]:
    """Reads the files in the multipart field `field`, at least one, or the one file that the body is.

    Raises Refusal: 408 too slow, 413 too large or too many files, 415 wrong content type, 400 and 422 malformed body.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed", "send it uncompressed, without Content-Encoding")
    max_bytes = int(serving.max_request_mb * MB)
    _check_size(int(request.headers.get("content-length", 0)), max_bytes)
    received = 0
    try:
        collector = _collector(request, field, max_files, serving, share)
        async with asyncio.timeout(serving.upload_s):
            async for chunk in request.stream():
                received += len(chunk)
                _check_size(received, max_bytes)
                share.add_bytes(len(chunk))
                collector.write(chunk)
    except TimeoutError:
        raise Refusal(
            408, f"the upload took longer than {serving.upload_s:g} s", "send smaller files, or use a faster connection"
        ) from None
    except FormParserError as error:
        raise Refusal(400, f"damaged multipart body: {error}", "send it as `curl -F` does") from None
    return collector.end()


def _check_size(num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise Refusal(413, f"the request is larger than {max_bytes / MB:g} MB", "send the files in several requests")


def _collector(request: Request, field: str, max_files: int, serving: Serving, share: Share) -> "_Parts | _Whole":
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    kind = kind.decode("latin-1")
    if kind in RAW:
        return _Whole(serving, share)
    if kind != MULTIPART:
        raise Refusal(
            415,
            f"content type {kind[:50]!r} is not supported" if kind else "the request has no content type",
            f"send {MULTIPART} with the field {field!r}, or one file as {', '.join(RAW)}",
        )
    if not parameters.get(b"boundary"):
        raise Refusal(400, "the multipart content type has no boundary", "send it as `curl -F` does")
    return _Parts(parameters[b"boundary"], field, parameters_of(request), max_files, serving, share)


class _File:
    """A file that is arriving."""

    def __init__(self, serving: Serving, share: Share, name: str = ""):
        share.add_file()
        self.name, self.max_mb = name, serving.max_file_mb
        self.chunks: list[bytes | memoryview] = []
        self.room = int(serving.max_file_mb * MB)

    def write(self, chunk: bytes | memoryview) -> None:
        self.room -= len(chunk)
        if self.room < 0:
            raise Refusal(413, f"a file is larger than {self.max_mb:g} MB", "send a smaller file")
        self.chunks.append(chunk)

    def end(self) -> Upload:
        return Upload(self.name, self.chunks)


class _Whole(_File):
    """A body that is one file."""

    def end(self) -> list[Upload]:
        return [super().end()]


class _Parts:
    """A multipart body (RFC 7578)."""

    def __init__(
        self, boundary: bytes, field: str, parameters: list[str], max_files: int, serving: Serving, share: Share
    ):
        """parameters: names of the route's parameters, which belong in the address and not in the form."""
        self.field, self.parameters, self.serving, self.share = field, parameters, serving, share
        self.max_files = max_files
        self.uploads: list[Upload] = []
        self.file: _File | None = None
        self.header, self.value, self.disposition = b"", b"", b""
        self.whole = False
        callbacks = {
            name: getattr(self, name)
            for name in (
                "on_part_begin",
                "on_header_field",
                "on_header_value",
                "on_header_end",
                "on_headers_finished",
                "on_part_data",
                "on_part_end",
                "on_end",
            )
        }
        self.parser = MultipartParser(boundary, callbacks)
        self.write = self.parser.write

    def end(self) -> list[Upload]:
        self.parser.finalize()
        if not self.whole:
            raise Refusal(400, "the multipart body ends early", "send the whole body again")
        if not self.uploads:
            raise Refusal(422, "the request has no file", f"send at least one in the field {self.field!r}")
        return self.uploads

    def on_part_begin(self) -> None:
        self.disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = self.value
        self.header, self.value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition.decode("latin-1"))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != self.field:
            what = "one file" if self.max_files == 1 else "files"
            moved = f", and {field} in the address: ?{field}=VALUE" if field in self.parameters else ""
            raise Refusal(
                422, f"unknown field {field[:MAX_SHOWN]!r}", f"send {what} in the field {self.field!r}{moved}"
            )
        if len(self.uploads) == self.max_files:
            most = "1 file" if self.max_files == 1 else f"{self.max_files} files"
            raise Refusal(413, f"the request has more than {most}", "send the files in several requests")
        name = options.get(b"filename", b"").decode("utf-8", "replace")[:MAX_NAME]
        self.file = _File(self.serving, self.share, name)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.file.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        self.uploads.append(self.file.end())

    def on_end(self) -> None:
        self.whole = True
