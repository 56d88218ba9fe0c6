"""Hybrid search: BM25 by its definition, fusion, equal answers in all stores, and bad input."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow as pa
import pytest

import rsicd_embed
from rsicd_embed import Area, Part, Query
from rsicd_embed.errors import QueryError
from rsicd_embed.query import full_text, hybrid
from rsicd_embed.stores.base import VectorStore, open_store

from .conftest import MADE_BY, SCHEMES, Words, direction, table

WORDS = (
    "harbour",
    "Boats",
    "boat",
    "cities",
    "city",
    "glass",
    "tank",
    "tanks",
    "Küste",
    "río",
    "a",
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VectorStore]]:
    """The same rows with texts in each kind of store, written in two steps."""
    draw, rows = random.Random(5), table().drop_columns(["captions"])

    def text() -> str | None:
        if draw.random() < 0.1:
            return None
        return ", ".join(draw.choices(WORDS, k=draw.randrange(9)))

    rows = rows.append_column("caption", pa.array([text() for _ in range(len(rows))]))
    lists = [draw.choice([None, [text(), text()], []]) for _ in range(len(rows))]
    rows = rows.append_column("notes", pa.array(lists, pa.list_(pa.string())))
    rows = rows.append_column("lon", pa.array([float(draw.randrange(-60, 60)) for _ in lists]))
    rows = rows.append_column("lat", pa.array([float(draw.randrange(-60, 60)) for _ in lists]))
    with ExitStack() as stack:
        opened = []
        for scheme in SCHEMES:
            uri = f"{scheme}:{tmp_path_factory.mktemp('hybrid') / 'store'}"
            opened.append(stack.enter_context(open_store(uri, MADE_BY)))
            opened[-1].upsert(rows.slice(0, 300).to_batches())
            opened[-1].upsert(rows.slice(300).to_batches())
        yield opened


def stem(word: str) -> str:
    for ending, but, new in (("ies", "ae", "y"), ("es", "aeo", "e"), ("s", "us", "")):
        before = word[: -len(ending)]
        if len(word) > 3 and word.endswith(ending) and before and before[-1] not in but:
            return before + new
    return word


def tokens(text: str) -> list[str]:
    return [stem(word) for word in re.findall(r"\w+", text.lower())]


def bm25(texts: dict[str, str | None], query: str) -> list[tuple[str, float]]:
    """BM25 as Robertson and Zaragoza define it, with Lucene's inverse document frequency."""
    documents = {id_: tokens(text) for id_, text in texts.items() if text is not None}
    mean = sum(map(len, documents.values())) / len(documents)
    scores = dict.fromkeys(documents, 0.0)
    for word in dict.fromkeys(tokens(query)):
        df = sum(word in document for document in documents.values())
        idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
        for id_, document in documents.items():
            tf = document.count(word)
            scores[id_] += idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * len(document) / mean))
    return sorted(((i, s) for i, s in scores.items() if s), key=lambda hit: (-hit[1], hit[0]))


@pytest.mark.parametrize("where", [None, "label = 'port'"])
@pytest.mark.parametrize("query", ["Boats!", "the tanks of a city", "RÍO küste", "nowhere"])
def test_full_text_ranks_by_bm25(stores: list[VectorStore], where: str | None, query: str) -> None:
    rows = stores[0].scan(["id", "caption"], where).read_all().to_pylist()
    expected = bm25({row["id"]: row["caption"] for row in rows}, query)
    for store in stores:
        ranked = full_text.ranked_ids(store, "caption", full_text.words([query]), where)
        assert dict(ranked) == pytest.approx(dict(expected))
        assert [score for _, score in ranked] == sorted(dict(ranked).values(), reverse=True)
        for n in (0, 1, 7, len(ranked) + 1):
            best = full_text.ranked_ids(store, "caption", full_text.words([query]), where, n)
            assert best == ranked[:n]


def test_plurals_with_es_and_their_singulars_are_one_word() -> None:
    singular = "overpass beach marsh box grass avalanche cache axe house rose tree city bus"
    plural = (
        "overpasses beaches marshes boxes grasses avalanches caches axes houses roses trees cities"
    )
    assert full_text.words([f"{singular} {plural}"]) == full_text.words([singular])
    assert len(full_text.words([singular])) == 13


@pytest.mark.parametrize(
    ("query", "used"),
    [("The boats of a city", ["boat", "city"]), ("Which is it?", ["which", "is", "it"])],
)
def test_stop_words_are_left_out_if_there_are_others(query: str, used: list[str]) -> None:
    assert hybrid.query_words(Query([Part(query)], hybrid=True)) == used


def test_lists_are_searched_as_one_text(stores: list[VectorStore]) -> None:
    rows = stores[0].scan(["id", "notes"]).read_all().to_pylist()
    texts = {
        row["id"]: None if row["notes"] is None else " ".join(filter(None, row["notes"]))
        for row in rows
    }
    for store in stores:
        ranked = full_text.ranked_ids(store, "notes", ["boat", "glass"], None)
        assert dict(ranked) == pytest.approx(dict(bm25(texts, "boat glass")))


def test_hits_are_fused_by_reciprocal_rank(stores: list[VectorStore], words: Words) -> None:
    store = stores[0]
    similar = store.search(direction("boats"), k=len(store))["id"].to_pylist()
    matching = full_text.ranked_ids(store, "caption", ["boat"], None)
    fused = {id_: 1 / (60 + rank) for rank, id_ in enumerate(similar, 1)}
    for rank, (id_, _) in enumerate(matching, 1):
        fused[id_] += 1 / (60 + rank)
    expected = sorted(fused.items(), key=lambda item: (-item[1], item[0]))
    hits = rsicd_embed.search(Query([Part("boats")], hybrid=True, k=20, offset=5), store, words)
    got = dict(zip(hits["id"].to_pylist(), hits["fused_score"].to_pylist(), strict=True))
    assert list(got) == [id_ for id_, _ in expected[5:25]]
    assert got == pytest.approx(dict(expected[5:25]))
    assert hits["rank"].to_pylist() == list(range(6, 26))
    scores = store.search(direction("boats"), k=len(store)).to_pylist()
    cosines = {row["id"]: row["score"] for row in scores}
    assert hits["score"].to_pylist() == [cosines[id_] for id_ in got]


def test_rows_outside_the_window_of_similarity_are_scored(
    stores: list[VectorStore], words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rsicd_embed.query.hybrid.WINDOW", 30)
    for store in stores:
        whole = store.search(direction("boats"), k=len(store)).to_pylist()
        hits = rsicd_embed.search(Query([Part("boats")], hybrid=True, k=30), store, words)
        cosines = {row["id"]: row["score"] for row in whole}
        late = {row["id"] for row in whole[30:]}
        assert late & set(hits["id"].to_pylist())
        assert hits["score"].to_pylist() == [cosines[id_] for id_ in hits["id"].to_pylist()]


def test_equal_hits_in_all_stores(stores: list[VectorStore], words: Words) -> None:
    draw = random.Random(9)
    for _ in range(40):
        parts = [Part(" ".join(draw.choices(WORDS, k=2))), Part(id="3/3")]
        parts += [Part("tanks", weight=-0.5)] * draw.randrange(2)
        query = Query(
            parts,
            k=draw.choice([1, 10, 50]),
            offset=draw.choice([0, 7]),
            where=draw.choice([None, "label = 'port'", "width > 100", "false"]),
            within=draw.choice([None, Area((-30, -30, 60, 60))]),
            min_score=draw.choice([None, 0.1]),
            with_examples=draw.random() < 0.3,
            hybrid=True,
            text_column=draw.choice([None, "caption", "notes"]),
        )
        first, *others = (rsicd_embed.search(query, store, words) for store in stores)
        names = ["rank", "id", "score", "fused_score", "text_score"]
        assert ("3/3" in first["id"].to_pylist()) <= query.with_examples
        for other in others:
            assert other.select(names).equals(first.select(names)), query


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"parts": [Part("boats")], "text_column": "nothing"}, "no column 'nothing'; text columns"),
        ({"parts": [Part("boats")], "text_column": "width"}, "'width' with the type int32"),
        ({"parts": [Part("…!")]}, "a text with words for a hybrid search, found no words in '…!'"),
        ({"parts": [Part(id="3/3")]}, "found no texts"),
        ({"parts": [Part("boats")], "k": None}, "at most 1000 together"),
        ({"parts": [Part("boats")], "offset": 1000}, "found 1010"),
    ],
)
def test_bad_queries(
    stores: list[VectorStore], words: Words, query: dict[str, object], message: str
) -> None:
    with pytest.raises(QueryError, match=re.escape(message)):
        rsicd_embed.search(Query(**query, hybrid=True), stores[0], words)  # type: ignore[arg-type]


def test_text_column_of_a_plain_search() -> None:
    with pytest.raises(QueryError, match="a text column is for hybrid searches"):
        Query([Part("boats")], text_column="caption")


def test_a_store_without_text_columns(stores: list[VectorStore]) -> None:
    nested = ("captions", pa.list_(pa.list_(pa.string())))
    schema = pa.schema([("id", pa.string()), ("cloud", pa.float64()), nested])
    with pytest.raises(QueryError, match=r"no column of a usual name; text columns: none"):
        full_text.text_column(schema, None)
