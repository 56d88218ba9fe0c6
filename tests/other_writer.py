"""A second process that writes to a store at a chosen moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from filelock import FileLock

from tests.stress.workers import StressWorker


def run_in_a_process(job: Callable[..., None], *arguments: Any) -> None:
    worker = StressWorker(job, *arguments)
    list(worker.messages())
    assert worker.process.exitcode == 0


def before_the_lock(monkeypatch: pytest.MonkeyPatch, *job: Any) -> None:
    """Runs a job in another process when this one is about to lock the store for the first time."""
    acquire = FileLock.acquire

    def write_first(lock: FileLock, *arguments: Any, **options: Any) -> Any:
        monkeypatch.undo()
        run_in_a_process(*job)
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", write_first)
