"""Images of an epoch: drawn by weight, anew for each epoch, and reproducibly."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.train.input.caption_draws import Captions, Order, Ragged


def order(weights: list[float], seed: int = 0) -> Order:
    lists = Ragged.of([[i] for i in range(len(weights))])
    none = np.zeros((len(weights), 1), np.int32)
    captions = Captions(("x",) * len(weights), none, none[:, 0], lists, lists)
    return Order(np.asarray(weights), captions, 0.0, seed)


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([0.01, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0]), min_size=1, max_size=30),
    st.integers(0, 5),
    st.integers(0, 2**31),
)
def test_images_are_drawn_by_weight(weights: list[float], number: int, seed: int) -> None:
    draws = order(weights, seed).epoch(number)
    assert len(draws.rows) == len(draws.texts) == len(draws.seeds) == len(order(weights))
    np.testing.assert_array_equal(draws.texts, draws.rows)
    drawn = Counter(draws.rows.tolist())
    for weight, size in Counter(weights).items():
        counts = [drawn[i] for i, w in enumerate(weights) if w == weight]
        assert int(weight) <= min(counts)
        assert max(counts) <= -(-weight // 1)  # only the fraction makes a difference
        assert sum(counts) == max(1, int(weight) * size + round(weight % 1 * size))


def test_weight_one_draws_every_image_once() -> None:
    images = order([1.0] * 100)
    epochs = [images.epoch(number).rows for number in range(3)]
    for rows in epochs:
        assert sorted(rows.tolist()) == list(range(100))
        assert rows.dtype == np.int32
    assert len({rows.tobytes() for rows in epochs}) == 3
    np.testing.assert_array_equal(order([1.0] * 100).epoch(2).rows, epochs[2])
    assert order([1.0] * 100, seed=1).epoch(2).rows.tobytes() != epochs[2].tobytes()


def test_weight_one_half_draws_another_half_each_time() -> None:
    half = order([0.5] * 40)
    drawn = [frozenset(half.epoch(number).rows.tolist()) for number in range(20)]
    assert {len(rows) for rows in drawn} == {20}
    assert frozenset.union(*drawn) == set(range(40))
    assert len(set(drawn)) == 20


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1), st.data())
def test_ragged_lists(lists: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.of(lists)
    rows = np.arange(len(lists))
    where = data.draw(st.floats(0, 1, exclude_max=True))
    drawn = ragged.draw(rows, np.full(len(lists), where))
    assert drawn.tolist() == [values[int(where * len(values))] for values in lists]
    with pytest.raises(IndexError):
        ragged.draw(rows + 1, np.zeros(len(lists)))
