"""A contender whose settings take turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rsicd_embed.bench.ann.contenders import Contender
from rsicd_embed.bench.ann.worker import ConfiguredWorker, ContenderWorker
from rsicd_embed.bench.workers import InlineWorker

QUERIES = np.eye(3, dtype=np.float32)


class Noting(Contender):
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def configure(self, settings: Mapping[str, int]) -> None:
        self.asked.append(dict(settings))

    def search(self, queries: np.ndarray, k: int, where: str | None = None) -> None:
        self.asked.append(k)


def test_settings_take_turns_and_each_is_warm_when_it_is_timed() -> None:
    contender = Noting()
    place = InlineWorker("noting", lambda: ContenderWorker(lambda: contender, QUERIES))
    one, other = (ConfiguredWorker(place, {"efSearch": ef}, 7) for ef in (20, 50))
    for asked in (one, other, other, one):
        asked.call(ContenderWorker.singles, 7, None, 1)
    first, second = {"efSearch": 20}, {"efSearch": 50}
    assert contender.asked == [first, 7, 7, 7, 7, second, 7, 7, 7, 7, 7, first, 7, 7, 7, 7]


def test_the_first_search_after_settings_alone_is_the_first() -> None:
    contender = Noting()
    held = ContenderWorker(lambda: contender, QUERIES)
    held.configure({"efSearch": 20})
    first, answers = held.answers(5, None, 1.0)
    assert contender.asked == [{"efSearch": 20}, 5, 5, 5]
    assert first > 0
    assert len(answers) == 3
