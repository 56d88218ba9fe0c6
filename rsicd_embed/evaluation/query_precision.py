"""Precision of search results for a list of queries with the classes that they mean."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsicd_embed.datasets.classes import class_key
from rsicd_embed.errors import DatasetError
from rsicd_embed.evaluation.metrics import Bootstrap, intervals
from rsicd_embed.reports.evaluation_types import QueryPrecision, QueryScores

EVERYDAY_QUERIES = Path(__file__).with_name("everyday_queries.csv")
_COLUMNS = ["query", "classes"]


@dataclass(frozen=True)
class LabelledQuery:
    """A text, and the classes whose images answer it."""

    text: str
    classes: tuple[str, ...]


def read(path: Path) -> list[LabelledQuery]:
    """Reads a CSV file with the columns `query` and `classes`, which are separated by semicolons.

    Raises:
        DatasetError: it cannot be read, has other columns or no rows, or a row lacks a value.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(content, newline=""), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as CSV: {error}") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if header != _COLUMNS:
        raise DatasetError(
            f"{path}: expected the columns {','.join(_COLUMNS)} in the first line, "
            f"found {','.join(header)[:80] or 'none'}"
        )
    queries = []
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        text, classes = (*row, "", "")[:2]
        names = tuple(dict.fromkeys(name.strip() for name in classes.split(";") if name.strip()))
        if len(row) != 2 or not text.strip() or not names:
            raise DatasetError(
                f"{path}, line {number}: expected a query and its classes separated by "
                f"semicolons, found {','.join(row)[:80]!r}"
            )
        queries.append(LabelledQuery(text.strip(), names))
    if not queries:
        raise DatasetError(f"{path}: expected queries, found none")
    return queries


def precisions(similarities: np.ndarray, relevant: np.ndarray, k: int) -> np.ndarray:
    """Fraction of relevant images among the k most similar; of all relevant ones if fewer than k.

    Args:
        similarities: float (queries, images).
        relevant: bool (queries, images), at least one in each row.
        k: number of results; ties are in the order of the images, as in a store.

    Returns:
        float64 (queries,).

    Example:
        >>> precisions(np.array([[0.9, 0.5, 0.7]]), np.array([[True, True, False]]), 2)
        array([0.5])
    """
    best = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(relevant, best, axis=1).sum(axis=1)
    return np.asarray(hits / np.minimum(relevant.sum(axis=1), k))


def report(
    queries: Sequence[LabelledQuery],
    labels: Sequence[str],
    images: np.ndarray,
    texts: np.ndarray,
    k: int,
    bootstrap: Bootstrap,
) -> QueryScores:
    """Scores the k best images of each query.

    Queries whose classes have no images are left out, with a note. Names of classes are compared
    by their letters and digits, in lower case.

    Args:
        queries: the queries.
        labels: the class of each image.
        images: float32 (images, dim), unit vectors.
        texts: float32 (queries, dim), unit vectors of the queries.
        k: number of results per query.
        bootstrap: settings of the intervals, which are over the queries.

    Raises:
        DatasetError: no query has a class with images.
    """
    keys = np.array([class_key(label) for label in labels])
    of_query = [{class_key(name) for name in query.classes} for query in queries]
    relevant = np.array([np.isin(keys, list(names)) for names in of_query])
    scored = [i for i, images_of in enumerate(relevant) if images_of.any()]
    unknown = sorted(set().union(*of_query) - set(keys.tolist()))
    if not scored:
        raise DatasetError(
            f"expected images of the classes {', '.join(unknown)[:80]}, found "
            f"{', '.join(sorted(set(labels)))[:80] or 'none'}; the classes of the queries are "
            "spelt like the dataset's"
        )
    values = precisions(texts[scored] @ images.T, relevant[scored], k)

    def mean(drawn: np.ndarray) -> dict[str, np.ndarray]:
        return {f"p{k}": drawn @ values / drawn.sum(axis=1)}

    notes = []
    if unknown:
        left_out = len(queries) - len(scored)
        notes.append(f"classes without images: {', '.join(unknown)}; queries left out: {left_out}")
    per_query: list[QueryPrecision] = [
        {
            "query": queries[i].text,
            "classes": list(queries[i].classes),
            "relevant": int(relevant[i].sum()),
            "precision": float(value),
        }
        for i, value in zip(scored, values, strict=True)
    ]
    return {
        "n": len(labels),
        "queries": len(scored),
        "k": k,
        "metrics": {f"p{k}": float(values.mean())},
        "intervals": intervals(mean, len(values), bootstrap),
        "bootstrap": {**bootstrap.as_json(), "unit": "query"},
        "without_hits": int((values == 0).sum()),
        "per_query": per_query,
        "notes": notes,
    }
