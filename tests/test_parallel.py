"""Ordered parallel map and batching."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsicd_embed.parallel import batched, ordered_map, read_ahead


@given(st.lists(st.integers(), max_size=50), st.integers(1, 8), st.integers(1, 4))
def test_ordered_map_equals_map(items: list[int], ahead: int, threads: int) -> None:
    assert list(ordered_map(str, items, ahead=ahead, threads=threads)) == [str(i) for i in items]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 8))
def test_ordered_map_raises_errors_in_order(length: int, bad: int, ahead: int) -> None:
    got: list[int] = []

    def reciprocal(value: int) -> float:
        return 1 / (value - bad)

    if bad < length:
        with pytest.raises(ZeroDivisionError):
            got.extend(ordered_map(reciprocal, range(length), ahead=ahead, threads=2))
    for index, value in enumerate(ordered_map(reciprocal, range(min(bad, length)), ahead=ahead)):
        assert value == 1 / (index - bad)


@given(st.integers(0, 40), st.integers(1, 6))
def test_ordered_map_computes_at_most_ahead(length: int, ahead: int) -> None:
    started, lock = 0, threading.Lock()

    def source() -> Any:
        nonlocal started
        for item in range(length):
            with lock:
                started += 1
            yield item

    for index, _ in enumerate(ordered_map(str, source(), ahead=ahead, threads=2)):
        assert started <= index + 1 + ahead


@given(st.lists(st.integers(), max_size=50), st.integers(1, 10))
def test_batched_keeps_all_items(items: list[int], size: int) -> None:
    batches = list(batched(items, size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])
    assert all(1 <= len(batch) <= size for batch in batches)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="found 0"):
        next(ordered_map(str, [1], ahead=0))
    with pytest.raises(ValueError, match="found 0"):
        next(batched([1], 0))


def test_read_ahead_keeps_items_and_errors() -> None:
    assert list(read_ahead(range(5))) == [0, 1, 2, 3, 4]
    assert list(read_ahead([])) == []
    produced: list[int] = []

    def source() -> Any:
        for item in range(4):
            produced.append(item)
            yield item
        raise KeyError("end")

    items = read_ahead(source())
    assert next(items) == 0 and len(produced) <= 2
    with pytest.raises(KeyError):
        list(items)
    next(abandoned := read_ahead(source()))
    abandoned.close()
