"""One SQL query, from its text to the batches of its result."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from rsicd_embed.embedder.base import Embedder, provenance, word_warnings
from rsicd_embed.errors import SQLError
from rsicd_embed.query.calls import Call, find, with_first_argument
from rsicd_embed.query.pushdown import store_condition
from rsicd_embed.query.session import TABLE, Session
from rsicd_embed.query.similar import Similarities, placeholders
from rsicd_embed.query.table import StoreTable
from rsicd_embed.records import VECTOR, require_same_model
from rsicd_embed.stores.base import VectorStore, require_store


def run(query: str, store: VectorStore, embedder: Callable[[], Embedder]) -> pa.RecordBatchReader:
    """Answers a query over the rows of a store, its table `images`; see `rsicd_embed.query`.

    Args:
        query: one SELECT in DataFusion's dialect, with `similarity` and `similarity_image`.
        store: it must stay open until the result is read.
        embedder: called once if the query has a similarity, and makes sense otherwise.

    Returns:
        The result as it is computed; what fails while rows are read is raised when it is read.

    Warns:
        UserWarning: the model was not trained on a word of a text.

    Raises:
        SQLError: a syntax error, an unknown name, a wrong type, or a statement that does not read.
        FingerprintError: the embedder is of another model than the store's vectors.
        ArgumentError: a URI for the store.
    """
    require_store(store)
    if not isinstance(query, str):
        raise SQLError(f"expected a SQL query as a string, found {type(query).__name__}")
    calls = find(query)
    # As it stands first: so errors speak of what was written, and it shows what the query needs
    # besides its similarities.
    table = StoreTable(store)
    session = Session(table, placeholders())
    frame = session.plan(query)
    names = [_shown(name, calls) for name in frame.schema().names]
    asked = frame.logical_plan()
    if calls:
        similar = Similarities(calls, store.provenance.dim, of_scores=VECTOR not in table.columns)
        table = StoreTable(store, similar.column if similar.of_scores else None, similar.type)
        session = Session(table, similar.functions())
        frame = _planned_with_rows(session, with_first_argument(query, calls, VECTOR), calls)
        made_by = embedder()
        require_same_model(store.provenance, provenance(made_by), store.uri)
        for line in word_warnings(made_by, similar.texts):
            warnings.warn(line, stacklevel=2)
        similar.embed(made_by)
    fields = [
        pa.field(name, field.type, field.nullable)
        for name, field in zip(names, session.result_schema(frame), strict=True)
    ]
    schema = pa.schema(fields)
    where = store_condition(asked, session.parse)
    table.start(where, hold="RecursiveQuery" in asked.display_indent())
    return pa.RecordBatchReader.from_batches(schema, _batches(session, frame, table, schema))


def _batches(
    session: Session, frame: Any, table: StoreTable, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    try:
        for batch in session.stream(frame):
            # Arrays without columns would lose the number of rows.
            named = pa.record_batch(batch.columns, schema=schema) if len(schema) else batch
            yield named
    except SQLError:
        if table.failure is not None:
            raise table.failure from None
        raise


def _planned_with_rows(session: Session, query: str, calls: Sequence[Call]) -> Any:
    """The plan of a query in which each call is given its row.

    Raises:
        SQLError: where a call stands, there is no row of the store, or more than one.
    """
    try:
        return session.plan(query)
    except SQLError as error:
        text = str(error)
    name = calls[0].function
    if text.startswith("no column"):
        advice = f"it compares the rows of {TABLE}: use it in a SELECT that is FROM {TABLE}"
    elif "ambiguous" in text.lower():
        advice = (
            "several tables have rows to compare: compute it for one of them, in a subquery "
            f"(SELECT id, {name}(…) AS score FROM {TABLE})"
        )
    elif "GROUP BY" in text or "DISTINCT" in text:
        advice = f"each row has its own: put it in an aggregate, avg({name}(…)), or in GROUP BY"
    else:
        advice = f"it needs the column {VECTOR} of {TABLE} ({text})"
    raise SQLError(f"{name}(…) cannot be used there: {advice}")


def _shown(name: str, calls: Sequence[Call]) -> str:
    """DataFusion's name of a column, with the calls in it as they are written."""
    for call in calls:
        written = call.argument.replace("'", "''")
        name = name.replace(
            f'{call.function}(Utf8("{call.argument}"))', f"{call.function}('{written}')"
        )
    return name
