"""A pool of decoders, each a process with limits on time and memory. A decoder that dies or hangs is replaced."""

import asyncio
import json
import math
import mmap
import os
import signal
import socket
import sys
import time
from contextlib import suppress

import numpy as np

from etl.contract.images.lungs.crop import Crop
from inference.film.films import DECODER_DIED, Film
from inference.film.stated import Stated
from inference.model.inputs import Attributes
from inference.service.door.counters import Counters

# The film's pixels replace the file, so there must be room for (S, S, 3) of the largest model that is possible, twice:
# of a cropped film, its whole square follows.
MIN_MEMORY_BYTES = 2 * 3 * 4096**2
START_S = 60
AGAIN_S = 1
# The process has ended, or its answer is not a line of JSON.
NO_ANSWER = (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, json.JSONDecodeError)


class CannotDecode(Exception):
    """The file is not a usable image. is_image: whether it has a format that is read, however damaged it is."""

    def __init__(self, reason: str, is_image: bool):
        super().__init__(reason)
        self.is_image = is_image


class DecoderPool:
    """Decodes files into films, in `number` processes."""

    def __init__(self, number: int, max_file_bytes: int, max_mb: int, max_s: float, counters: Counters):
        self._number, self._max_s, self._counters = number, max_s, counters
        self._memory_bytes, self._max_mb = max(max_file_bytes, MIN_MEMORY_BYTES), max_mb
        self._idle: asyncio.LifoQueue[_Decoder] = asyncio.LifoQueue()
        self._all: set[_Decoder] = set()
        self._starting: set[asyncio.Task] = set()

    async def start(self) -> None:
        await asyncio.gather(*(self._add() for _ in range(self._number)))

    async def stop(self) -> None:
        for task in self._starting:
            task.cancel()
        for decoder in self._all:
            decoder.kill()
        await asyncio.gather(*(decoder.process.wait() for decoder in self._all))

    async def decode(self, chunks: list[bytes | memoryview], properties: str, shape: tuple[int, ...]) -> Film:
        """Decodes a file, given in pieces, into the film for a model with these properties, as JSON.

        shape: that of the pixels which the model takes for one film, see Properties.image_shape.

        Raises CannotDecode with the reason, also if the file killed its decoder or took too long.
        """
        while (decoder := await self._idle.get()).has_ended():
            # It died while idle, for example killed by the kernel when memory was short; no file is the cause.
            self._replace(decoder)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._max_s):
                answer = await decoder.ask(chunks, properties)
        except TimeoutError:
            self._replace(decoder)
            raise CannotDecode(f"not decoded within {self._max_s:g} s", is_image=True) from None
        except NO_ANSWER:
            self._replace(decoder)
            raise CannotDecode(DECODER_DIED, is_image=True) from None
        except BaseException:
            # Cancelled: the late answer would be taken for the next file's.
            self._replace(decoder)
            raise
        self._counters.decode_s.observe(time.perf_counter() - started)
        if "reason" in answer:
            self._idle.put_nowait(decoder)
            raise CannotDecode(answer["reason"], answer["is_image"])
        stated, crop, doubts = (answer.pop(name) for name in ("stated", "crop", "doubts"))
        pixels, whole = decoder.pixels(shape), decoder.pixels(shape, place=1) if crop else None
        self._idle.put_nowait(decoder)
        found = stated and Stated(Attributes(**stated["values"]), strange=tuple(stated["strange"]))
        return Film(pixels, **answer, stated=found, crop=crop and Crop(*crop), whole=whole, doubts=tuple(doubts))

    def _replace(self, decoder: "_Decoder") -> None:
        decoder.kill()
        self._all.discard(decoder)
        self._counters.decoders_replaced.inc()
        task = asyncio.get_running_loop().create_task(self._add_again())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _add_again(self) -> None:
        """Adds a decoder, trying until one starts: what prevents it, such as a lack of memory, may pass."""
        while True:
            try:
                return await self._add()
            except (OSError, *NO_ANSWER):
                await asyncio.sleep(AGAIN_S)

    async def _add(self) -> None:
        decoder = await _Decoder.started(self._memory_bytes, self._max_mb)
        self._all.add(decoder)
        self._idle.put_nowait(decoder)


class _Decoder:
    """One process, and the memory that it shares with this one."""

    @classmethod
    async def started(cls, memory_bytes: int, max_mb: int) -> "_Decoder":
        self = cls()
        memory_fd = os.memfd_create("film")
        ours, theirs = socket.socketpair()
        try:
            os.ftruncate(memory_fd, memory_bytes)
            self.memory = mmap.mmap(memory_fd, memory_bytes)
            # In its own session it can be killed together with what it forked, and Ctrl-C does not reach it.
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "inference.service.engine.decoder"),
                *(str(memory_fd), str(theirs.fileno()), str(max_mb)),
                pass_fds=(memory_fd, theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        finally:
            theirs.close()
            os.close(memory_fd)
        self.reader, self.writer = await asyncio.open_connection(sock=ours)
        try:
            async with asyncio.timeout(START_S):
                await self._read()
        except BaseException:
            self.kill()
            raise
        return self

    async def ask(self, chunks: list[bytes | memoryview], properties: str) -> dict:
        num_bytes = 0
        for chunk in chunks:
            self.memory[num_bytes : num_bytes + len(chunk)] = chunk
            num_bytes += len(chunk)
        question = {"num_bytes": num_bytes, "properties": properties}
        self.writer.write(json.dumps(question).encode() + b"\n")
        return await self._read()

    async def _read(self) -> dict:
        line = await self.reader.readuntil()
        return json.loads(line)

    def has_ended(self) -> bool:
        return self.reader.at_eof() or self.process.returncode is not None

    def pixels(self, shape: tuple[int, ...], place: int = 0) -> np.ndarray:
        start, length = place * math.prod(shape), math.prod(shape)
        return np.frombuffer(self.memory[start : start + length], np.uint8).reshape(shape)

    def kill(self) -> None:
        self.writer.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
