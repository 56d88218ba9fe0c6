"""A writer that is killed leaves the old state or the new one, in every store."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from rsicd_embed.stores.base import open_store
from tests.stress.workers import StressWorker

from .contract import MADE_BY, batch, stored, unit

IDS = [f"i{i}" for i in range(200)]


def upsert_for_ever(send: Callable[..., None], uri: str, first: int) -> None:
    with open_store(uri) as store:
        for turn in count(first):
            store.upsert([batch(IDS, unit(200, seed=turn), n=[turn] * 200)])
            send("first" if turn == first else "further", turn)


@pytest.mark.parametrize("scheme", ["exact", "nmslib", "lancedb"])
def test_killed_while_upserting(scheme: str, tmp_path: Path) -> None:
    uri = f"{scheme}:{tmp_path}/store"
    moments = random.Random(0)
    turn = 0
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch(IDS, unit(200), n=[0] * 200)])
    for _ in range(3):  # `python -m tests.stress` kills at many more moments
        worker = StressWorker(upsert_for_ever, uri, turn + 1)
        # Kill it during one of the next few upserts.
        messages = worker.messages(after=("first", moments.uniform(0, 0.03)))
        reported = max(turn for _, turn in messages)
        assert worker.signal == signal.SIGKILL
        with open_store(uri) as store:
            rows = stored(store)
            assert set(rows) == set(IDS)
            (turn,) = {row["n"] for row in rows.values()}
            assert turn in (reported, reported + 1)
            vectors = unit(200, seed=turn)
            assert all(rows[f"i{i}"]["vector"] == vectors[i].tobytes() for i in range(200))
            assert store.search(vectors[7], k=1)["id"].to_pylist() == ["i7"]
