"""Micro-batching: every request gets its own answer, in whatever order requests arrive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.errors import RequestError
from rsicd_embed.server.batching import Batcher, Policy


class Squares:
    """Answers with squares, or errors for negative numbers; waits while `go` is not set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, questions: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(questions))
        assert self.go.wait(60)
        return [ValueError(str(n)) if n < 0 else n * n for n in questions]


def with_batcher(
    use: Callable[[Batcher[int, int], Squares], Coroutine[Any, Any, None]],
    policy: Policy | None = None,
) -> Squares:
    answer = Squares()

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            await use(Batcher(answer, pool, policy or Policy(linger_s=0)), answer)

    asyncio.run(main())
    return answer


@given(st.lists(st.lists(st.integers(-9, 99), max_size=30), max_size=6), st.integers(1, 9))
@settings(max_examples=40)
def test_each_request_gets_its_answer(waves: list[list[int]], most: int) -> None:
    async def use(batcher: Batcher[int, int], _: Squares) -> None:
        for wave in waves:
            got = await asyncio.gather(*map(batcher.ask, wave), return_exceptions=True)
            for n, result in zip(wave, got, strict=True):
                assert (str(result) == str(n)) if n < 0 else (result == n**2)

    answer = with_batcher(use, Policy(most=most, linger_s=0.001))
    assert sorted(chain(*answer.batches)) == sorted(chain(*waves))
    assert all(len(batch) <= most for batch in answer.batches)


def test_requests_during_a_batch_form_the_next_batch() -> None:
    async def use(batcher: Batcher[int, int], answer: Squares) -> None:
        answer.go.clear()
        first = asyncio.create_task(batcher.ask(0))
        while not answer.batches:
            await asyncio.sleep(0)
        rest = [asyncio.create_task(batcher.ask(i)) for i in range(1, 20)]
        await asyncio.sleep(0)
        answer.go.set()
        assert await asyncio.gather(first, *rest) == [i * i for i in range(20)]

    assert with_batcher(use).batches == [[0], list(range(1, 20))]


def test_cancelled_requests_are_dropped() -> None:
    async def use(batcher: Batcher[int, int], answer: Squares) -> None:
        answer.go.clear()
        first = asyncio.create_task(batcher.ask(0))
        while not answer.batches:
            await asyncio.sleep(0)
        gone, stays = (asyncio.create_task(batcher.ask(i)) for i in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()  # while its batch is running
        answer.go.set()
        assert await stays == 4

    assert with_batcher(use).batches == [[0], [2]]


def test_requests_beyond_the_queue_limit_are_refused() -> None:
    async def use(batcher: Batcher[int, int], answer: Squares) -> None:
        answer.go.clear()
        tasks = [asyncio.create_task(batcher.ask(i)) for i in range(3)]
        while not answer.batches:
            await asyncio.sleep(0)
        more = [asyncio.create_task(batcher.ask(i)) for i in range(3, 6)]
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="too many") as refused:
            await batcher.ask(9)
        assert refused.value.status == 503
        answer.go.set()
        assert await asyncio.gather(*tasks, *more) == [i * i for i in range(6)]

    with_batcher(use, Policy(linger_s=0, waiting=3))


def test_closing_answers_queued_requests() -> None:
    async def use(batcher: Batcher[int, int], answer: Squares) -> None:
        tasks = [asyncio.create_task(batcher.ask(i)) for i in range(5)]
        await asyncio.sleep(0)
        await batcher.close()
        assert await asyncio.gather(*tasks) == [i * i for i in range(5)]
        with pytest.raises(RequestError, match="stopping"):
            await batcher.ask(1)

    with_batcher(use)


def test_batch_failure_reaches_every_request() -> None:
    def fail(questions: Sequence[int]) -> list[int | Exception]:
        if len(questions) > 1:
            return [1]  # fewer answers than questions
        raise OSError("broken")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher: Batcher[int, int] = Batcher(fail, pool)
            with pytest.raises(OSError, match="broken"):
                await batcher.ask(1)
            got = await asyncio.gather(batcher.ask(1), batcher.ask(2), return_exceptions=True)
            assert [str(error) for error in got] == ["expected 2 answers, found 1"] * 2

    asyncio.run(main())
