"""`where` conditions in DataFusion's SQL dialect, evaluated over an Arrow table."""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rsicd_embed.errors import FilterError
from rsicd_embed.geography.spatial_functions import spatial_functions
from rsicd_embed.records import sql_literal

T = TypeVar("T")
CACHED_FILTERS = 8
_TABLE = "rows"
_LEAVES = {"Column", "Literal"}
_VOLATILE = {"random", "rand", "uuid"}
_REFUSED = {
    "AggregateFunction": "an aggregate function",
    "WindowFunction": "a window function",
    "Exists": "a subquery",
    "InSubquery": "a subquery",
    "ScalarSubquery": "a subquery",
    "SetComparison": "a subquery",
    "Placeholder": "a placeholder",
    "Wildcard": "*",
}
# In an error of DataFusion, which quotes all names but plain lower-case ones.
UNKNOWN_COLUMN = re.compile(r'No field named ((?:\S+?\.)?"(?:[^"]|"")*"|\S+?)\.(?:\s|$)')
# Limits of DataFusion that it reports as internal errors or in its own terms: pattern → message.
_LIMITS = {
    r"Cannot run range queries on datatype: ([^\n]{1,80})": (
        "ORDER BY in OVER (…) cannot compare values of type {}: order by a number, a text or a "
        "time, or add ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
    ),
    r"Failed to coerce types (.{1,80}).* and (.{1,80}).* in BETWEEN": (
        "BETWEEN cannot compare {} with {}: cast one of them"
    ),
    r"Function '(\w+)' failed to match any signature": (
        "{} does not accept a value of this type: cast it, or see DataFusion SQL"
    ),
    r"not support logical expression (?:ScalarSubquery|OuterReference|Exists|InSubquery)": (
        "a subquery can compare its rows with the outer row only by = and AND: "
        "write it as a JOIN, perhaps with GROUP BY"
    ),
    r"Correlated (?:scalar )?subquery can only be used in": (
        "a subquery that uses the outer row can be used in SELECT and WHERE only: "
        "give its value a name in SELECT, and use that name"
    ),
    r"(?:Internal error|SanityCheckPlan)[: ]*([^\n]{,120})": (
        "DataFusion, the SQL engine, cannot compute this ({}); write it another way, for example "
        "with a subquery that computes the columns first"
    ),
}


# An exception of a function in Python, as the text of a Rust structure with its traceback.
_RAISED = re.compile(
    r"""PyErr \{ type: [^\n]*?, value: \w+\(('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\), traceback"""
)

_ID = re.compile(r"'([^']*(?:''[^']*)*)'")
_ID_LIST = re.compile(rf"id IN \(({_ID.pattern}(?:, {_ID.pattern})*)\)")

# Functions that depend on the time; a false alarm only costs some.
_CHANGING = re.compile(r"\b(now|current_\w+|today)\b", re.IGNORECASE)


def is_volatile(where: str) -> bool:
    """Whether a condition may match other rows when it is evaluated again."""
    return _CHANGING.search(where) is not None


class RecentFilters(Generic[T]):
    """Caches the results of the last few conditions, as filters are often reused with other
    queries."""

    def __init__(self) -> None:
        self._results: dict[str, T] = {}
        self._mutex = threading.Lock()

    def result(self, where: str, evaluate: Callable[[str], T]) -> T:
        """The cached result, or that of `evaluate`; always the latter if it depends on the time."""
        if not isinstance(where, str) or is_volatile(where):
            return evaluate(where)
        with self._mutex:
            result = self._results.pop(where, None)
        if result is None:
            result = evaluate(where)
        with self._mutex:
            self._results[where] = result  # the latest is last
            if len(self._results) > CACHED_FILTERS:
                del self._results[next(iter(self._results))]
        return result


def matching(table: pa.Table, where: str) -> np.ndarray:
    """Evaluates a condition for each row; NULL counts as False.

    Args:
        table: the columns that `where` may use (stores leave out their vectors).
        where: for example `label = 'port' AND width BETWEEN 200 AND 600`.

    Returns:
        bool (rows,).

    Raises:
        FilterError: a syntax error, an unknown column, a wrong type, not a condition, or an
            expression that involves other rows (aggregates, subqueries).
    """
    if not isinstance(where, str) or not where.strip():
        raise FilterError(f"expected a SQL condition as where, found {where!r}; omit it")
    ids = listed_ids(where)
    if ids is not None and "id" in table.column_names and pa.types.is_string(table["id"].type):
        stored = table["id"]
        wanted = pa.array(ids, pa.string())
        # Comparing takes half the time of a look-up.
        mask = pc.equal(stored, wanted[0]) if len(wanted) == 1 else pc.is_in(stored, wanted)
        return np.asarray(mask.to_numpy(), dtype=bool)
    # Takes 0.2 s, and only searches with other conditions need it.
    from datafusion import SessionConfig, SessionContext

    # One partition keeps the rows in order; a new context leaves no state behind.
    context = SessionContext(SessionConfig().with_target_partitions(1))
    try:
        register_spatial_functions(context)
        frame = context.from_arrow(table, name=_TABLE)
        condition = frame.parse_sql_expr(where)
        _require_row_by_row(condition, where)
        frame = frame.select(condition.alias("matches"))
        kind = frame.schema().field(0).type
        if not (pa.types.is_boolean(kind) or pa.types.is_null(kind)):
            raise FilterError(
                f"where {_shown(where)}: expected a condition that is true or false, "
                f"found a value of type {kind}; compare it with something"
            )
        mask = pa.chunked_array(frame.to_arrow_table()["matches"]).cast(pa.bool_())
    except FilterError:
        raise
    except BaseException as error:
        # DataFusion raises plain Exceptions, and its panics are not Exceptions at all.
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise FilterError(
            f"where {_shown(where)}: {_explained(error, table.schema, where)}"
        ) from None
    return np.asarray(mask.fill_null(False).to_numpy(), dtype=bool)


def listed_ids(where: str) -> list[str] | None:
    """The ids of a condition that `with_ids` wrote, which needs no SQL engine; None for others."""
    match = _ID_LIST.fullmatch(where)
    if match is None:
        return None
    return [text.replace("''", "'") for text in _ID.findall(match[1])]


def register_spatial_functions(context: Any) -> None:
    """Adds the functions st_… to a DataFusion session."""
    from datafusion import udf

    for compute, arguments, result, name in spatial_functions():
        context.register_udf(udf(compute, arguments, result, "immutable", name))


def _require_row_by_row(expression: Any, where: str) -> None:
    kind = expression.variant_name()
    refused = _REFUSED.get(kind)
    if kind == "ScalarFunction" and expression.schema_name().partition("(")[0] in _VOLATILE:
        refused = "a random function"
    if refused is None and kind not in _LEAVES:
        try:
            operands = expression.rex_call_operands()
        except Exception:
            refused = f"an expression of kind {kind}"
        else:
            for operand in operands:
                _require_row_by_row(operand, where)
    if refused:
        raise FilterError(
            f"where {_shown(where)}: {refused} cannot be used in a condition on one row"
        )


def _shown(where: str) -> str:
    return repr(clipped(" ".join(where.split())))


def clipped(text: str, most: int = 120) -> str:
    """Shortens a text for a message."""
    return text if len(text) <= most else f"{text[: most - 3]}…"


def _explained(error: BaseException, schema: pa.Schema, where: str) -> str:
    """Rewrites an error of DataFusion in one line, in terms of the columns a user knows."""
    columns = ", ".join(quoted(name) for name in schema.names)
    text = str(error).replace(f"{_TABLE}.", "")
    if unknown := UNKNOWN_COLUMN.search(text):
        name = unknown[1].strip('"')
        similar = [quoted(known) for known in schema.names if known.lower() == name.lower()]
        hint = f"did you mean {similar[0]}? " if similar else ""
        if name == "vector":
            hint = "vectors are compared by the query, not in where; "
        hint = hint or quotes_hint(unknown[1], where)
        return f"no column {clipped(name)}; {hint}columns: {columns}"
    if re.search(r"table '.*?' not found", text):
        return (
            f"{_REFUSED['Exists']} cannot be used in a condition on one row; SQL queries have them"
        )
    if re.search(r"Invalid function 'similarity(_image)?'", text):
        return (
            "similarity(…) can be used in SQL only: rsicd-embed sql "
            '"SELECT id FROM images WHERE …", or rsicd_embed.sql in Python'
        )
    if syntax := re.search(r"ParserError\(\"(.*)\"\)", text):
        return f"syntax error: {syntax[1]}; expected one SQL condition"
    return plain_words(text) or type(error).__name__


def quotes_hint(name: str, sql: str) -> str:
    """A hint for an unknown column that is written in double quotes in `sql`; otherwise empty.

    DataFusion shows `name` in double quotes unless it is a plain lower-case name.
    """
    match = re.search(r'"(?:[^"]|"")*"$', name)
    written = match[0] if match else f'"{name.rpartition(".")[2]}"'
    if written not in sql:
        return ""
    text = sql_literal(written[1:-1].replace('""', '"'))
    return f"double quotes are for column names; write texts in single quotes: {text}; "


def plain_words(text: str) -> str:
    """An error of DataFusion in one line of at most 300 characters, without its jargon."""
    if raised := _RAISED.search(text):
        return clipped(" ".join(str(ast.literal_eval(raised[1])).split()), 300)
    for pattern, message in _LIMITS.items():
        if limit := re.search(pattern, text):
            return message.format(*(group.rstrip(".") for group in limit.groups()))
    text = text.partition("Candidate functions:")[0]
    if "Span(" in text:  # the parser's own structures: only keep the name of the outermost
        text = re.sub(r"(\w+)(?:\(\w+)* \{.*", r"\1", text, flags=re.DOTALL)
    text = re.sub(
        r"\b((DataFusion|Arrow|External|Execution|Schema|SQL) error|Error during planning): "
        r"|Optimizer rule '\w+' failed|^caused by$|\btype_coercion\b",
        "",
        text,
        flags=re.MULTILINE,
    )
    return clipped(" ".join(text.split()), 300)


def quoted(name: str) -> str:
    """A column name as written in SQL, which folds unquoted names to lower case."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f'"{name}"'
