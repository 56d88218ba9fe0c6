"""Micro-batching: answer concurrent requests in one call."""

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
    """How requests are batched.

    Attributes:
        most: maximum size of a batch.
        linger_s: time to wait for more requests, in seconds. Applies only if the last batch had
            more than one, so a single client never waits.
        waiting: maximum number of queued requests; more are refused.
    """

    most: int = 64
    linger_s: float = 0.002
    waiting: int = 2048


class Batcher(Generic[Q, A]):
    """Queues requests while a batch is being answered, and answers them as the next batch.

    All methods must be called on one event loop. Batches are answered on a thread of `executor`,
    one at a time.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        executor: Executor,
        policy: Policy | None = None,
        *,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Creates a batcher.

        Args:
            answer: returns an answer or an error for each question of a batch.
            executor: runs `answer`.
            policy: how requests are batched.
            observe: called with the size of each batch.
        """
        self._answer, self._executor, self._observe = answer, executor, observe
        self._policy = policy or Policy()
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._running: asyncio.Task[None] | None = None
        self._full = asyncio.Event()
        self._last = 1
        self._closed = False

    async def ask(self, question: Q) -> A:
        """Returns the answer to a question, or raises it if it is an exception.

        Raises:
            RequestError: 503: the queue is full, or the server is stopping.
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
        """Answers the queued requests and refuses new ones."""
        self._closed = True
        self._full.set()
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        """Answers batches until the queue is empty."""
        try:
            while self._waiting:
                await self._linger()
                count = min(len(self._waiting), self._policy.most)
                batch = [self._waiting.popleft() for _ in range(count)]
                # Cancelled requests need no answer.
                batch = [(question, future) for question, future in batch if not future.done()]
                if batch:
                    await self._answer_batch(batch)
        finally:
            self._running = None

    async def _linger(self) -> None:
        self._full.clear()
        wanted = min(self._policy.most, self._last)
        if wanted > 1 and len(self._waiting) < wanted and not self._closed:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._policy.linger_s)

    async def _answer_batch(self, batch: list[tuple[Q, asyncio.Future[A]]]) -> None:
        self._last = len(batch)
        self._observe(len(batch))
        loop = asyncio.get_running_loop()
        questions = [question for question, _ in batch]
        answers: Sequence[A | Exception]
        try:
            answers = await loop.run_in_executor(self._executor, self._answer, questions)
            if len(answers) != len(batch):
                raise RuntimeError(f"expected {len(batch)} answers, found {len(answers)}")
        except Exception as error:
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
