"""Running a SQL query over a store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pyarrow as pa

from rsicd_embed.embedder.base import Embedder, require_embedder, word_warnings
from rsicd_embed.errors import SQLError
from rsicd_embed.query.pushdown import store_condition
from rsicd_embed.query.search import model_loader
from rsicd_embed.query.session import TABLE, Session
from rsicd_embed.query.similarity import (
    Call,
    Similarities,
    find_calls,
    placeholders,
    with_literals,
)
from rsicd_embed.query.table import StoreTable
from rsicd_embed.records import VECTOR
from rsicd_embed.stores.base import VectorStore, require_store


def run(query: str, store: VectorStore, embedder: Callable[[], Embedder]) -> pa.RecordBatchReader:
    """Runs a query over the rows of a store (table `images`); see `rsicd_embed.query`.

    Args:
        query: one SELECT in DataFusion's dialect, with `similarity` and `similarity_image`.
        store: store to query; it must stay open until the result is read.
        embedder: returns the embedder; only called if the query is valid and has a similarity.

    Returns:
        The result, computed while it is read; errors in rows are raised then.

    Warns:
        UserWarning: a text contains a word that the model was not trained on.

    Raises:
        SQLError: a syntax error, an unknown name, a wrong type, or a statement other than a query.
        FingerprintError: the store's vectors were made by another model.
        ArgumentError: a URI instead of a store.
    """
    require_store(store)
    if not isinstance(query, str):
        raise SQLError(f"expected a SQL query as a string, found {type(query).__name__}")
    if "\0" in query:  # columns named after their expressions could not be exported
        raise SQLError("expected a SQL query without the character NUL; write chr(0) instead")
    calls = find_calls(query)
    # Planned as written first, so that errors refer to the user's text, and to see which columns
    # the query needs besides its similarities.
    table = StoreTable(store)
    session = Session(table, placeholders())
    frame = session.plan(with_literals(query, calls))
    names = [_column_name(name, calls) for name in frame.schema().names]
    plan = frame.logical_plan()
    if calls:
        embedder = cache(embedder)
        similar = Similarities(calls, store.provenance.dim, of_scores=VECTOR not in table.columns)
        table = StoreTable(store, similar.column if similar.of_scores else None, similar.type)
        session = Session(table, similar.functions())
        frame = _plan_with_rows(session, with_literals(query, calls, VECTOR), calls)
        similar.embed(store, embedder)
        if similar.texts:
            for line in word_warnings(embedder(), similar.texts):
                warnings.warn(line, stacklevel=2)
    fields = [
        pa.field(name, field.type, field.nullable)
        for name, field in zip(names, session.result_schema(frame), strict=True)
    ]
    schema = pa.schema(fields)
    where = store_condition(plan, session.parse)
    table.start(where, repeatable="RecursiveQuery" in plan.display_indent())
    return pa.RecordBatchReader.from_batches(schema, _batches(session, frame, table, schema))


def sql(query: str, store: VectorStore, embedder: Embedder | None = None) -> pa.Table:
    """Runs a SQL query over the rows of a store, which are the table `images`.

    Args:
        query: one SELECT in DataFusion's dialect, with `similarity` and `similarity_image`.
        store: store to query.
        embedder: embeds the texts and images of similarities; None loads the store's model if the
            query has any.

    Returns:
        The whole result.

    Raises:
        SQLError: a syntax error, an unknown name, a wrong type, or a statement other than a query.
        FingerprintError: the store's vectors were made by another model.
        ModelError: the model that made the store cannot be loaded.
        ArgumentError: a URI instead of a store, or a name instead of an embedder.
    """
    if embedder is not None:
        require_embedder(embedder)

    return run(query, store, model_loader(store, embedder)).read_all()


def _batches(
    session: Session, frame: Any, table: StoreTable, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in session.stream(frame):
            # A new batch without columns would lose the number of rows.
            yield pa.record_batch(batch.columns, schema=schema) if len(schema) else batch
    except SQLError:
        if table.failure is not None:
            raise table.failure from None
        raise


def _plan_with_rows(session: Session, query: str, calls: Sequence[Call]) -> Any:
    """Plans a query whose calls have the vector column as an argument.

    Raises:
        SQLError: there is not exactly one row of the store at the place of a call.
    """
    try:
        return session.plan(query)
    except SQLError as error:
        text = str(error)
    name = calls[0].function
    if text.startswith("no column"):
        advice = f"it compares rows of {TABLE}: use it in a SELECT … FROM {TABLE}"
    elif "ambiguous" in text.lower():
        advice = (
            "several tables have rows to compare: compute it for one of them in a subquery "
            f"(SELECT id, {name}(…) AS score FROM {TABLE})"
        )
    elif "GROUP BY" in text or "DISTINCT" in text:
        advice = (
            f"each row has its own value: use it in an aggregate, avg({name}(…)), or in GROUP BY"
        )
    else:
        advice = f"it needs the column {VECTOR} of {TABLE} ({text})"
    raise SQLError(f"{name}(…) cannot be used there: {advice}")


def _column_name(name: str, calls: Sequence[Call]) -> str:
    """DataFusion's name of a result column, with calls in it shown as the user wrote them."""
    for call in calls:
        name = name.replace(f'{call.function}(Utf8("{call.argument}"))', call.shown)
    return name
