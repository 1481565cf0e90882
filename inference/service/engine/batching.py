"""Dynamic batches: images that wait while the model is busy are computed together; none waits while it is idle."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from inference.model.graphs import Answer
from inference.model.inputs import Inputs
from inference.service.door.counters import Counters
from inference.service.door.refusals import Refusal

Compute = Callable[..., Answer]
"""(*inputs, alone=...) -> Answer of a batch; see Inputs. alone: whether nothing else needs the cores"""
# A batch takes a second at most. Without a limit, the images of a batch that never ends would be held for ever.
MAX_INFERENCE_S = 60


class Batcher:
    """Gives the images of all requests to one model, in batches. Belongs to one event loop."""

    def __init__(self, compute: Compute, num_requests: int, max_batch: int, counters: Counters):
        """num_requests: batches that are computed side by side, each in a thread that calls `compute`."""
        self._compute, self._max_batch, self._counters = compute, max_batch, counters
        self._num_requests = self._free = num_requests
        self._threads = ThreadPoolExecutor(num_requests, "model")
        self._waiting: list[tuple[Inputs, asyncio.Future]] = []
        self._loop = asyncio.get_running_loop()

    async def answer(self, *inputs: np.ndarray, alone: bool = False) -> Answer:
        """Returns the answer to one image; neither its inputs (see Inputs) nor its answer's arrays have a batch axis.

        alone: whether nothing else, such as a file being decoded, needs the cores. Raises the error of `compute`, and
        Refusal (503) if the model takes too long for one batch; the wait for other batches does not count.
        """
        future = self._loop.create_future()
        self._waiting.append((inputs, future))
        self._start_batches(alone)
        return await future

    def _start_batches(self, alone: bool = False) -> None:
        # Drop the images whose request has ended.
        self._waiting = [one for one in self._waiting if not one[1].done()]
        while self._waiting and self._free:
            # Not all waiting images: the other inference requests, which end soon, have cores of their own.
            size = min(self._max_batch, -(-len(self._waiting) // self._num_requests))
            images, futures = zip(*self._waiting[:size], strict=True)
            del self._waiting[:size]
            self._free -= 1
            self._counters.batch_size.observe(size)
            answered = self._loop.run_in_executor(self._threads, self._answer_each, images, alone)
            overdue = self._loop.call_later(MAX_INFERENCE_S, answered.cancel)
            answered.add_done_callback(partial(self._end_batch, futures, time.perf_counter(), overdue))

    def _answer_each(self, images: tuple[Inputs, ...], alone: bool) -> list[Answer]:
        answer = self._compute(*map(np.stack, zip(*images, strict=True)), alone=alone)
        return [Answer(*(part[index] for part in answer)) for index in range(len(images))]

    def _end_batch(
        self,
        futures: tuple[asyncio.Future, ...],
        started: float,
        overdue: asyncio.TimerHandle,
        answered: asyncio.Future,
    ) -> None:
        overdue.cancel()
        self._counters.inference_s.observe(time.perf_counter() - started)
        self._free += 1
        error = _too_slow() if answered.cancelled() else answered.exception()
        for future, answer in zip(futures, [None] * len(futures) if error else answered.result(), strict=True):
            if future.done():
                continue
            if error:
                future.set_exception(error)
            else:
                future.set_result(answer)
        self._start_batches()


def _too_slow() -> Refusal:
    reason = f"the model did not answer within {MAX_INFERENCE_S:g} s"
    return Refusal(503, reason, "send it again in a minute", {"Retry-After": "60"})
