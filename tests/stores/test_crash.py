"""A writer that is killed leaves the old state or the new one, in every store."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from rsicd_embed.stores.base import open_store

from .contract import MADE_BY, batch, stored, unit

CHILD = """
import sys
from rsicd_embed.stores.base import open_store
uri, turn = sys.argv[1], int(sys.argv[2])
sys.path.insert(0, sys.argv[3])
from stores.contract import batch, unit
store = open_store(uri)
while True:
    turn += 1
    store.upsert([batch([f"i{i}" for i in range(200)], unit(200, seed=turn), n=[turn] * 200)])
    print(turn, flush=True)
"""


@pytest.mark.parametrize("scheme", ["exact", "nmslib", "lancedb"])
def test_killed_while_upserting(scheme: str, tmp_path: Path) -> None:
    uri = f"{scheme}:{tmp_path}/store"
    moments = random.Random(0)
    turn = 0
    with open_store(uri, MADE_BY) as store:
        store.upsert([batch([f"i{i}" for i in range(200)], unit(200), n=[0] * 200)])
    for _ in range(3):  # `python -m tests.stress` kills at many more moments
        arguments = [uri, str(turn), str(Path(__file__).parents[1])]
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            reported = int(child.stdout.readline())
            # Kill it during one of the next few upserts.
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=moments.uniform(0, 0.03))
            child.kill()
            reported = max([reported, *(int(line) for line in child.stdout)])
        with open_store(uri) as store:
            rows = stored(store)
            assert set(rows) == {f"i{i}" for i in range(200)}
            (turn,) = {row["n"] for row in rows.values()}
            assert turn in (reported, reported + 1)
            vectors = unit(200, seed=turn)
            assert all(rows[f"i{i}"]["vector"] == vectors[i].tobytes() for i in range(200))
            assert store.search(vectors[7], k=1)["id"].to_pylist() == ["i7"]
