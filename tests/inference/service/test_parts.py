"""Parts of the service that can be tested without starting it: batches, capacity, rate."""

import asyncio
import json
from concurrent.futures import Future

import numpy as np
import pytest

from inference.model.graphs import Answer
from inference.service.door.capacity import Capacity
from inference.service.door.counters import Counters
from inference.service.door.guard import Guard
from inference.service.door.rate import RateLimit
from inference.service.door.refusals import Refusal
from inference.service.engine.batching import Batcher
from inference.service.routes import all_or_none


class HeldModel:
    """Answers with each image's first pixel, but only when told to."""

    def __init__(self):
        self.batches: list[tuple[np.ndarray, Future]] = []

    def compute(self, pixels: np.ndarray, alone: bool) -> Answer:
        told: Future = Future()
        self.batches.append((pixels, told))
        return told.result(10)

    def answer_first(self, error: Exception | None = None) -> None:
        pixels, told = self.batches.pop(0)
        first = pixels[:, 0, 0].astype(np.float32)
        if error:
            told.set_exception(error)
        else:
            told.set_result(Answer(first[:, None], first[:, None, None, None], first))


async def started(model: HeldModel) -> None:
    while not model.batches:
        await asyncio.sleep(0.001)


def films(*values: int) -> list[np.ndarray]:
    return [np.full((2, 2), value, np.uint8) for value in values]


def test_images_that_wait_while_the_model_is_busy_are_one_batch():
    async def ask() -> tuple[list[int], list[float]]:
        model = HeldModel()
        batcher = Batcher(model.compute, 1, 4, Counters())
        answers = [asyncio.create_task(batcher.answer(film)) for film in films(*range(7))]
        sizes = []
        while not all(answer.done() for answer in answers):
            await asyncio.sleep(0.001)
            if model.batches:
                sizes.append(len(model.batches[0][0]))
                model.answer_first()
        return sizes, [float(answer.result().distances) for answer in answers]

    sizes, distances = asyncio.run(ask())
    assert sizes == [1, 4, 2]
    assert distances == list(range(7))


def test_waiting_images_are_shared_among_all_inference_requests():
    async def ask() -> list[int]:
        model = HeldModel()
        batcher = Batcher(model.compute, 2, 16, Counters())
        answers = [asyncio.create_task(batcher.answer(film)) for film in films(*range(8))]
        sizes = []
        while not all(answer.done() for answer in answers):
            await asyncio.sleep(0.001)
            if model.batches:
                sizes.append(len(model.batches[0][0]))
                model.answer_first()
        return sizes

    assert asyncio.run(ask()) == [1, 1, 3, 2, 1]


def test_a_failed_batch_is_an_error_for_all_its_images_and_the_next_is_computed():
    async def ask() -> list:
        model = HeldModel()
        batcher = Batcher(model.compute, 1, 4, Counters())
        answers = [asyncio.create_task(batcher.answer(film)) for film in films(1, 2, 3)]
        await started(model)
        model.answer_first()
        await started(model)
        model.answer_first(RuntimeError("no memory"))
        results = await asyncio.gather(*answers, return_exceptions=True)
        again = asyncio.create_task(batcher.answer(films(9)[0]))
        await started(model)
        model.answer_first()
        return [*results, await again]

    first, *failed, again = asyncio.run(ask())
    assert float(first.distances) == 1 and float(again.distances) == 9
    assert [str(error) for error in failed] == ["no memory"] * 2


def test_only_the_computing_is_timed_and_not_the_wait_for_it(monkeypatch):
    monkeypatch.setattr("inference.service.engine.batching.MAX_INFERENCE_S", 0.5)

    async def ask() -> list[float]:
        model = HeldModel()
        batcher = Batcher(model.compute, 1, 1, Counters())
        answers = [asyncio.create_task(batcher.answer(film)) for film in films(1, 2, 3)]
        for _ in answers:
            await started(model)
            await asyncio.sleep(0.3)
            model.answer_first()
        return [float((await answer).distances) for answer in answers]

    assert asyncio.run(ask()) == [1, 2, 3]


def test_a_model_that_does_not_answer_is_an_error_for_all_and_is_used_again_when_it_does(monkeypatch):
    monkeypatch.setattr("inference.service.engine.batching.MAX_INFERENCE_S", 0.2)

    async def ask() -> tuple[list, float]:
        model = HeldModel()
        batcher = Batcher(model.compute, 1, 2, Counters())
        lost = await asyncio.gather(*map(batcher.answer, films(1, 2, 3)), return_exceptions=True)
        model.answer_first()
        again = asyncio.create_task(batcher.answer(films(9)[0]))
        await started(model)
        model.answer_first()
        return lost, float((await again).distances)

    lost, again = asyncio.run(ask())
    assert [(type(error), error.status) for error in lost] == [(Refusal, 503)] * 3
    assert again == 9


def test_a_film_that_nobody_waits_for_is_not_computed():
    async def ask() -> list[int]:
        model = HeldModel()
        batcher = Batcher(model.compute, 1, 4, Counters())
        answers = [asyncio.create_task(batcher.answer(film)) for film in films(1, 2, 3)]
        await started(model)
        answers[1].cancel()
        model.answer_first()
        await started(model)
        (computed, _), *_ = model.batches
        model.answer_first()
        await asyncio.wait(answers)
        return computed[:, 0, 0].tolist()

    assert asyncio.run(ask()) == [3]


def test_if_one_fails_the_others_are_ended():
    async def ask() -> tuple[list[str], str]:
        ended = []

        async def work(name: str) -> None:
            try:
                await asyncio.sleep(0 if name == "bad" else 10)
                raise Refusal(503, "no", "later")
            finally:
                ended.append(name)

        with pytest.raises(Refusal) as refused:
            await all_or_none(map(work, ("good", "bad")))
        return ended, str(refused.value)

    assert asyncio.run(ask()) == (["bad", "good"], "no")


def test_a_request_that_is_ended_with_the_service_gets_status_503():
    async def ask() -> tuple[list[dict], list[dict]]:
        sent = []

        async def waits(scope, receive, send) -> None:
            await receive()
            await asyncio.sleep(10)

        async def receive() -> dict:
            return {"type": "http.request", "body": b"half", "more_body": True}

        async def send(message: dict) -> None:
            sent.append(message)

        guard = Guard(waits, ["localhost"], "", 0, Counters())
        headers = [(b"host", b"localhost"), (b"content-length", b"1000")]
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers}
        task = asyncio.create_task(guard(scope, receive, send))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(task, 0.5)
        return sent

    start, body = asyncio.run(ask())
    assert start["status"] == 503 and (b"connection", b"close") in start["headers"]
    assert json.loads(body["body"])["error"] == "the service is shutting down"


def test_capacity_is_given_back_whatever_happens():
    capacity = Capacity(max_files=2, max_bytes=100)
    with capacity.share() as first:
        first.add_file()
        first.add_bytes(60)
        with pytest.raises(Refusal) as refused, capacity.share() as second:
            second.add_file()
            second.add_bytes(41)
        assert refused.value.status == 503 and (capacity.files, capacity.bytes) == (1, 60)
        with pytest.raises(Refusal), capacity.share() as second:
            second.add_file()
            second.add_file()
    assert (capacity.files, capacity.bytes) == (0, 0)


def test_a_client_may_ask_a_minutes_requests_at_once_and_then_at_their_rate():
    rate = RateLimit(60)
    assert [rate.take("1.2.3.4", 0) for _ in range(61)] == [0] * 60 + [1]
    assert rate.take("1.2.3.5", 0) == 0
    assert [rate.take("1.2.3.4", 2) for _ in range(3)] == [0, 0, 1]
    assert RateLimit(0).take("1.2.3.4", 0) == 0
    slow = RateLimit(1)
    assert (slow.take("a", 0), slow.take("a", 15), slow.take("a", 60)) == (0, 45, 0)


def test_an_ipv6_client_counts_as_its_network():
    rate = RateLimit(1)
    assert rate.take("2001:db8::1", 0) == 0
    assert rate.take("2001:db8::2", 0) == 60
    assert rate.take("2001:db8:0:1::1", 0) == 0
    # IPv4 clients arrive like this if the service listens to both.
    assert [rate.take(client, 0) for client in ("::ffff:1.2.3.4", "::ffff:1.2.3.5", "1.2.3.4")] == [0, 0, 60]


def test_clients_are_forgotten_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr("inference.service.door.rate.MAX_CLIENTS", 10)
    rate = RateLimit(1)
    for number in range(100):
        rate.take(f"10.0.0.{number}", number * 10)
    assert len(rate._buckets) <= 11
