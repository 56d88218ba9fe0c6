"""Score distributions, which are the same in every store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.errors import QueryError
from rsicd_embed.stores import score_distribution
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import DIM, MADE_BY, batch, unit
from tests.helpers import SCHEMES


@pytest.mark.parametrize("scheme", SCHEMES)
def test_percentile_is_the_share_of_lower_scores(scheme: str, tmp_path: Path) -> None:
    query = unit(1, seed=9)
    vectors = unit(40, seed=3)
    vectors[20:] = vectors[:20]  # tied scores are not below each other
    with open_store(f"{scheme}:{tmp_path / 'store'}", MADE_BY) as store:
        store.upsert([batch([f"{i:02}" for i in range(40)], vectors)])
        scores = store.search(query, k=40)["score"].to_numpy()
        distribution = score_distribution.measure(store, query[0])
    assert distribution.rows == 40
    assert [distribution.percentile(float(score)) for score in scores] == [
        100 * (38 - 2 * (i // 2)) / 40 for i in range(40)
    ]
    wide = scores.astype(np.float64)
    assert distribution.mean == pytest.approx(wide.mean())
    assert distribution.median == pytest.approx(np.median(wide))
    best = distribution.deviations(float(scores[0]))
    assert best == pytest.approx((wide[0] - wide.mean()) / wide.std())


def test_equal_scores(tmp_path: Path) -> None:
    with open_store(f"exact:{tmp_path}", MADE_BY) as store:
        empty = score_distribution.measure(store, unit(1))
        store.upsert([batch(["a"])])
        single = score_distribution.measure(store, unit(1))
        with pytest.raises(QueryError, match="expected one query to explain, found 2"):
            score_distribution.measure(store, np.ones((2, DIM)))
    assert (empty.rows, empty.percentile(0.5), empty.deviations(0.5)) == (0, 0.0, None)
    assert (single.rows, single.percentile(2.0), single.deviations(0.5)) == (1, 100.0, None)
