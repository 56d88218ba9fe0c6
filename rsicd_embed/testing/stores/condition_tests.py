"""`where`: one dialect, applied before the best k are taken."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from rsicd_embed.errors import FilterError
from rsicd_embed.stores.base import VectorStore
from rsicd_embed.testing.stores.sample_rows import batch, found, unit


class ConditionTests:
    """`where`: one dialect, applied before the best k are taken."""

    def test_where(self, store: VectorStore) -> None:
        """DataFusion's dialect over strings, numbers, times and lists."""
        store.upsert(
            [
                batch(
                    ["a", "b", "c", "d"],
                    width=[100, 224, 500, None],
                    label=["port", "farmer's field", None, "Port"],
                    Label=["p", "q", "r", "s"],
                    share=[0.1, 0.5, None, 0.9],
                    cloud=[True, False, None, True],
                    day=pa.array(
                        [dt.datetime(2020, 1, day) for day in (1, 2, 3)] + [None],
                        pa.timestamp("us"),
                    ),
                    tags=[["sea", "boat"], ["field"], [], None],
                )
            ]
        )
        for where, expected in {
            "width >= 224": "bc",
            "width between 100 and 224": "ab",
            "width in (100, 500)": "ac",
            "width is null": "d",
            "not (width is null)": "abc",
            "width <> 100": "bc",
            "WIDTH > 100 AND share < 0.6": "b",
            "label = 'farmer''s field'": "b",
            "label like 'p%'": "a",
            "label ilike 'p%'": "ad",
            "lower(label) = 'port'": "ad",
            "label is not null and label != 'port'": "bd",
            "\"Label\" = 'r'": "c",
            "cloud": "ad",
            "not cloud": "b",
            "cloud is not true": "bc",
            "day < '2020-01-02'": "a",
            "day >= timestamp '2020-01-02 00:00:00'": "bc",
            "array_has(tags, 'sea')": "a",
            "cardinality(tags) = 1": "b",
            "tags is null": "d",
            "id = 'c' or share > 0.8": "cd",
            "width / 2 = 50 -- half": "a",
            "uri is null": "abcd",
            "true": "abcd",
            "null": "",
            "case when cloud then width < 200 else share = 0.5 end": "ab",
        }.items():
            assert found(store, where) == set(expected), where

    def test_where_in_objects(self, store: VectorStore) -> None:
        """A field of a null object is null, at any depth, and not the 0 that Arrow has there."""
        cloud = pa.StructArray.from_arrays(
            [pa.array([0, 9, 7]), pa.array(["", "x", "y"])],
            ["cloud", "place"],
            mask=pa.array([True, False, False]),
        )
        outer = pa.StructArray.from_arrays([cloud], ["geo"], mask=pa.array([False, True, False]))
        listed = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), outer)
        store.upsert([batch(["a", "b", "c"], geo=cloud, outer=outer, listed=listed)])
        for where, expected in {
            "geo['cloud'] < 8": "c",
            "geo['cloud'] is null": "a",
            "geo is null": "a",
            "geo['place'] = ''": "",
            "geo['cloud'] <> 7": "b",
            "outer['geo']['cloud'] >= 0": "c",
            "outer['geo'] is null": "ab",
            "outer['geo']['place'] is null": "ab",
            "outer is null": "b",
            "listed[1]['geo']['cloud'] >= 0": "c",
            "listed[1]['geo'] is null": "ab",
            "listed[2]['geo']['cloud'] is null": "abc",
        }.items():
            assert found(store, where) == set(expected), where

    def test_where_comes_before_k(self, store: VectorStore) -> None:
        """k rows come back where k rows match."""
        vectors = unit(300)
        order = np.argsort(-(vectors @ vectors[0]))
        rare = np.isin(np.arange(300), order[-5:])
        store.upsert([batch([f"i{i}" for i in range(300)], vectors, rare=rare)])
        hits = store.search(vectors[0], k=5, where="rare")
        assert hits["id"].to_pylist() == [f"i{i}" for i in order[-5:]]
        assert store.search(vectors[0], k=7, where="not rare").num_rows == 7
        assert store.search(vectors[:3], k=7, where="rare").num_rows == 15

    def test_wrong_where(self, store: VectorStore) -> None:
        """One line that says what is wrong, the same from search and scan."""
        store.upsert([batch(["a", "b"], width=[1, 2], Label=["x", "y"])])
        uses: tuple[Callable[[str], object], ...] = (
            lambda one: store.search(unit(1), where=one),
            lambda one: store.scan(None, one).read_all(),
        )
        for where, words in (
            ("", "expected a SQL condition"),
            ("  ", "expected a SQL condition"),
            ("width >", "not understood"),
            ("width > 1; drop table rows", "not understood"),
            ("wide > 1", 'no column wide; columns: id, uri, sha256, width, height, "Label"'),
            ("label = 'x'", 'did you mean "Label"'),
            ("vector is null", "no column vector"),
            ("width", "expected a condition"),
            ("width + 1", "expected a condition"),
            ("'true'", "expected a condition"),
            ("width = 'abc'", "abc"),
            ("count(*) > 1", "aggregate"),
            ("max(width) = width", "aggregate"),
            ("row_number() over () < 3", "window"),
            ("width in (select 1)", "subquery"),
            ("exists (select 1)", "subquery"),
            ("width > (select 1)", "subquery"),
            ("random() < 0.5", "random"),
            ("width = $1", "placeholder"),
            ("nofunction(width)", "nofunction"),
            ("width / 0 = 1", "[Dd]ivide by zero"),
        ):
            messages = set()
            for use in uses:
                with pytest.raises(FilterError, match=words) as caught:
                    use(where)
                messages.add(str(caught.value))
            message = messages.pop()
            assert not messages
            assert "\n" not in message
            assert "rows." not in message
            assert len(message) < 600

    def test_where_sees_only_live_rows(self, store: VectorStore) -> None:
        """A deleted value cannot make a condition fail."""
        store.upsert([batch(["a", "b", "c"], code=["1", "x", "3"])])
        with pytest.raises(FilterError, match="x"):
            store.search(unit(1), where="cast(code as int) > 1")
        store.delete(["b"])
        assert found(store, "cast(code as int) > 1") == {"c"}
