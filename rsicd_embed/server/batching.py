"""Questions that arrive at about the same time, answered in one call: micro-batching."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from rsicd_embed.errors import RequestError

Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True)
class Policy:
    """How questions are collected.

    Attributes:
        most: questions answered in one call.
        linger_s: how long to wait for more. Only where the last call had more than one question:
            who asks alone is never kept waiting.
        waiting: questions that may wait; more are refused.
    """

    most: int = 64
    linger_s: float = 0.002
    waiting: int = 2048


class Batcher(Generic[Q, A]):
    """Collects questions while others are being answered, and answers them together.

    All methods are called on one event loop; answers are made on a thread of `executor`, one call
    at a time.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        executor: Executor,
        policy: Policy | None = None,
        *,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """`answer` gives one answer, or error, for each question; `observe` hears how many."""
        self._answer, self._executor, self._observe = answer, executor, observe
        self._policy = policy or Policy()
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._full = asyncio.Event()
        self._last = 1
        self._closed = False

    async def ask(self, question: Q) -> A:
        """The answer to a question; raises what is an Exception.

        Raises:
            RequestError: too many are waiting, or the server is stopping.
        """
        if self._closed:
            raise RequestError(503, "the server is stopping")
        if len(self._waiting) >= self._policy.waiting:
            raise RequestError(503, "too many requests are waiting; try again in a moment")
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if len(self._waiting) >= min(self._policy.most, self._last):
            self._full.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def close(self) -> None:
        """Answers what is waiting, and refuses what comes then."""
        self._closed = True
        self._full.set()
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        """Answers until nobody waits."""
        try:
            while self._waiting:
                await self._linger()
                count = min(len(self._waiting), self._policy.most)
                some = [self._waiting.popleft() for _ in range(count)]
                # Who has gone needs no answer.
                some = [(question, future) for question, future in some if not future.done()]
                if some:
                    await self._give(some)
        finally:
            self._running = None

    async def _linger(self) -> None:
        self._full.clear()
        wanted = min(self._policy.most, self._last)
        if wanted > 1 and len(self._waiting) < wanted and not self._closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._policy.linger_s)

    async def _give(self, some: list[tuple[Q, asyncio.Future[A]]]) -> None:
        self._last = len(some)
        self._observe(len(some))
        loop = asyncio.get_running_loop()
        questions = [question for question, _ in some]
        answers: Sequence[A | Exception]
        try:
            answers = await loop.run_in_executor(self._executor, self._answer, questions)
            if len(answers) != len(some):
                raise RuntimeError(f"expected {len(some)} answers, found {len(answers)}")
        except Exception as error:
            answers = [error] * len(some)
        for (_, future), answer in zip(some, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
