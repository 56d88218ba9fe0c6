"""Precision of search results for lists of queries."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from rsicd_embed.datasets.classes import phrases
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation import query_precision
from rsicd_embed.evaluation.metrics import Bootstrap
from rsicd_embed.evaluation.query_precision import LabelledQuery, precisions, read, report

LABELS = ["sea", "Land fill", "sea", "land_fill", "wood"]
IMAGES = np.eye(5, dtype=np.float32)


def test_precision_counts_at_most_the_relevant_images() -> None:
    similarities = np.array([[5, 4, 3, 2, 1], [1, 1, 1, 1, 1]], float)
    relevant = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 1]], bool)
    assert precisions(similarities, relevant, 1).tolist() == [1, 0]
    assert precisions(similarities, relevant, 3).tolist() == [1, 0]  # of two relevant images
    assert precisions(similarities, relevant, 4).tolist() == [1, 0.5]
    assert precisions(similarities, relevant, 9).tolist() == [1, 1]


def test_report() -> None:
    queries = [
        LabelledQuery("waves", ("Sea",)),
        LabelledQuery("rubbish", ("landfill", "dump")),
        LabelledQuery("dunes", ("desert",)),
    ]
    texts = np.array([[9, 1, 8, 0, 0], [9, 8, 0, 1, 0], [1, 0, 0, 0, 0]], np.float32)
    scores = report(queries, LABELS, IMAGES, texts, 2, Bootstrap(200))
    assert (scores["n"], scores["queries"], scores["metrics"]) == (5, 2, {"p2": 0.75})
    assert [(q["query"], q["precision"], q["relevant"]) for q in scores["per_query"]] == [
        ("waves", 1.0, 2),
        ("rubbish", 0.5, 2),
    ]
    assert scores["notes"] == ["classes without images: desert, dump; queries left out: 1"]
    assert scores["intervals"] == {"p2": (0.5, 1.0)}
    with pytest.raises(DatasetError, match=r"expected images of the classes desert, found Land"):
        report(queries[2:], LABELS, IMAGES, texts[2:], 2, Bootstrap(200))


def test_read(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('query,classes\n"planes, parked",airport; airplane\n\n a lake ,pond;\n')
    assert read(path) == [
        LabelledQuery("planes, parked", ("airport", "airplane")),
        LabelledQuery("a lake", ("pond",)),
    ]
    path.write_text('query,classes\n"a\u2028lake\nshore",pond\n', encoding="utf-8")
    assert read(path) == [LabelledQuery("a\u2028lake\nshore", ("pond",))]
    path.write_bytes(b"\xef\xbb\xbfquery,classes\r\nlake,pond\r\n")  # as spreadsheets save it
    assert read(path) == [LabelledQuery("lake", ("pond",))]
    for content, reason in {
        "": "found none",
        "text,classes\na,b\n": "found text,classes",
        "query,classes\n": "expected queries, found none",
        "query,classes\nlake\n": "line 2: expected a query and its classes",
        "query,classes\nlake,;\n": "line 2",
        "query,classes\nlake,pond\nplanes, parked,airport\n": "line 3",
        'query,classes\n"lake,pond\n': "cannot be read as CSV",
    }.items():
        path.write_text(content)
        with pytest.raises(DatasetError, match=re.escape(reason)):
            read(path)
    path.write_bytes(b"query,classes\ncaf\xe9,pond\n")
    with pytest.raises(DatasetError, match="cannot be read as CSV"):
        read(path)


def test_the_everyday_queries_are_not_training_captions() -> None:
    queries = read(query_precision.EVERYDAY_QUERIES)
    assert len({query.text for query in queries}) == len(queries) == 150
    classes = {name for query in queries for name in query.classes}
    trained = {re.sub(r"^(an?|the) ", "", p.lower()) for name in classes for p in phrases(name)}
    assert not [q.text for q in queries if re.sub(r"^(an?|the) ", "", q.text.lower()) in trained]
