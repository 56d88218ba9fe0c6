"""A contender whose settings alternate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rsicd_embed.bench.ann.contenders import Contender
from rsicd_embed.bench.ann.worker import ConfiguredWorker, ContenderWorker
from rsicd_embed.bench.workers import InlineWorker

QUERIES = np.eye(3, dtype=np.float32)


class Recording(Contender):
    """Records its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def configure(self, settings: Mapping[str, int]) -> None:
        self.calls.append(dict(settings))

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> None:
        self.calls.append(k)


def test_settings_alternate_and_are_warmed_up() -> None:
    contender = Recording()
    place = InlineWorker("recording", lambda: ContenderWorker(lambda: contender, QUERIES))
    narrow, wide = (ConfiguredWorker(place, {"efSearch": ef}, 7) for ef in (20, 50))
    for worker in (narrow, wide, wide, narrow):
        worker.call(ContenderWorker.singles, 7, None, 1)
    first, second = {"efSearch": 20}, {"efSearch": 50}
    assert contender.calls == [first, 7, 7, 7, 7, second, 7, 7, 7, 7, 7, first, 7, 7, 7, 7]


def test_configuring_does_not_search() -> None:
    contender = Recording()
    worker = ContenderWorker(lambda: contender, QUERIES)
    worker.configure({"efSearch": 20})
    first, answers = worker.answers(5, None, 1.0)
    assert contender.calls == [{"efSearch": 20}, 5, 5, 5]
    assert first > 0
    assert len(answers) == 3
