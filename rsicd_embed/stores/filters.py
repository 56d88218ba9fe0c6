"""`where`: one SQL condition, in DataFusion's dialect, over the rows of an Arrow table."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa

from rsicd_embed.errors import FilterError

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


def matching(table: pa.Table, where: str) -> np.ndarray:
    """Which rows satisfy a condition; where it is NULL, a row does not.

    Args:
        table: the columns that `where` may name (a store leaves its vectors out).
        where: for example `label = 'port' AND width BETWEEN 200 AND 600`.

    Returns:
        bool (rows,).

    Raises:
        FilterError: one line: a syntax error, an unknown column, a wrong type, not a condition,
            or something that does not look at each row by itself (aggregates, subqueries).
    """
    # 0.2 s, and only searches with a condition need it.
    from datafusion import SessionConfig, SessionContext

    if not isinstance(where, str) or not where.strip():
        raise FilterError(f"expected a SQL condition as where, found {where!r}; leave it out")
    # One partition keeps the rows in order; a context of its own keeps nothing for later.
    context = SessionContext(SessionConfig().with_target_partitions(1))
    try:
        frame = context.from_arrow(table, name=_TABLE)
        condition = frame.parse_sql_expr(where)
        _require_row_by_row(condition, where)
        frame = frame.select(condition.alias("matches"))
        found = frame.schema().field(0).type
        if not (pa.types.is_boolean(found) or pa.types.is_null(found)):
            raise FilterError(
                f"where {_shown(where)}: expected a condition that is true or false, "
                f"found a value of type {found}; compare it with something"
            )
        mask = pa.chunked_array(frame.to_arrow_table()["matches"]).cast(pa.bool_())
    except FilterError:
        raise
    except BaseException as error:
        # DataFusion raises plain Exceptions, and a panic in it is no Exception at all.
        if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)):
            raise
        raise FilterError(f"where {_shown(where)}: {_explained(error, table.schema)}") from None
    return np.asarray(mask.fill_null(False).to_numpy(), dtype=bool)


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
    text = " ".join(where.split())
    return repr(text if len(text) <= 120 else f"{text[:117]}…")


def _explained(error: BaseException, schema: pa.Schema) -> str:
    """What DataFusion says, in one line and in terms of the columns a user knows."""
    columns = ", ".join(quoted(name) for name in schema.names)
    text = str(error).replace(f"{_TABLE}.", "")
    unknown = re.search(r"No field named (\S+?)\.(?:\s|$)", text)
    if unknown:
        name = unknown[1].strip('"')
        same = [quoted(one) for one in schema.names if one.lower() == name.lower()]
        hint = f"did you mean {same[0]}? " if same else ""
        if name == "vector":
            hint = "vectors are compared by the query, not in where; "
        return f"no column {name}; {hint}columns: {columns}"
    parser = re.search(r"ParserError\(\"(.*)\"\)", text)
    if parser:
        return f"not understood: {parser[1]}; expected one SQL condition"
    return plain_words(text) or type(error).__name__


def plain_words(text: str) -> str:
    """What DataFusion says, in one line of at most 300 characters, without its own jargon."""
    text = text.partition("Candidate functions:")[0]
    text = re.sub(
        r"\b((DataFusion|Arrow|External|Execution|Schema|SQL) error|Error during planning): "
        r"|Optimizer rule '\w+' failed|^caused by$|\btype_coercion\b",
        "",
        text,
        flags=re.MULTILINE,
    )
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}…"


def quoted(name: str) -> str:
    """A column as it is typed in SQL."""
    # Unquoted names are folded to lower case, so others must be shown as they are to be typed.
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f'"{name}"'
