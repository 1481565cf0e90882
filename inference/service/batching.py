"""Dynamic batches: images that wait while the model is busy are computed together, and none waits while it is not."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from inference.graphs import Answer, Predict
from inference.service.counters import Counters

Answered = Callable[[Answer | Exception], None]
Start = Callable[[np.ndarray, Answered, bool], None]
"""(pixels, answered, alone) starts computing a batch and returns; later, from any thread, calls with the answer.
alone: whether no other work wants the cores"""
# A batch takes a second at most. A request that is never answered would hold its images for ever.
MAX_INFERENCE_S = 60


class Batcher:
    """Puts the images of all requests before one model. Of one event loop."""

    def __init__(self, start: Start, num_requests: int, max_batch: int, counters: Counters):
        """num_requests: batches that may be started before the first of them is answered."""
        self._start, self._max_batch, self._counters = start, max_batch, counters
        self._num_requests = self._free = num_requests
        self._waiting: deque[tuple[np.ndarray, asyncio.Future]] = deque()
        self._loop = asyncio.get_running_loop()

    async def answer(self, pixels: np.ndarray, alone: bool = False) -> Answer:
        """pixels: (S, S) uint8, one image. The answer's arrays are of this image, without the batch's axis.

        alone: whether nothing else, such as a file that is decoded, wants the cores.
        """
        future = self._loop.create_future()
        self._waiting.append((pixels, future))
        self._start_batches(alone)
        async with asyncio.timeout(MAX_INFERENCE_S):
            return await future

    def _start_batches(self, alone: bool = False) -> None:
        while self._waiting and self._free:
            # Not all that wait: the other requests, which end soon, have cores of their own.
            size = min(self._max_batch, -(-len(self._waiting) // self._num_requests))
            batch = [self._waiting.popleft() for _ in range(size)]
            self._free -= 1
            self._counters.batch_size.observe(size)
            futures = [future for _, future in batch]
            answered = partial(self._loop.call_soon_threadsafe, self._end_batch, futures, time.perf_counter())
            self._start(np.stack([pixels for pixels, _ in batch]), answered, alone)

    def _end_batch(self, futures: list[asyncio.Future], started: float, answer: Answer | Exception) -> None:
        self._counters.inference_s.observe(time.perf_counter() - started)
        self._free += 1
        for index, future in enumerate(futures):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(Answer(*(part[index] for part in answer)))
        self._start_batches()


def start_in_thread(predict: Predict, thread: ThreadPoolExecutor) -> Start:
    """Start of a model that has no queue of its own. thread: one, because a Predict is for one thread at a time."""

    def compute(pixels: np.ndarray, answered: Answered) -> None:
        try:
            answer = predict(pixels)
        # Whatever it is, those who wait for the batch get it.
        except Exception as error:
            answer = error
        answered(answer)

    # Such a model computes on all cores, alone or not.
    return lambda pixels, answered, alone: thread.submit(compute, pixels, answered)
