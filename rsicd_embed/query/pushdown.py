"""Predicate pushdown: the part of a query's WHERE that a store can apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rsicd_embed.records import VECTOR, sql_literal, sql_name

_COMPARISONS = {"=", "!=", "<", "<=", ">", ">=", "AND", "OR"}
_COMPARISONS |= {"IS DISTINCT FROM", "IS NOT DISTINCT FROM"}
_SUFFIXES = {
    "IsNull": "IS NULL",
    "IsNotNull": "IS NOT NULL",
    "IsTrue": "IS TRUE",
    "IsFalse": "IS FALSE",
    "IsNotTrue": "IS NOT TRUE",
    "IsNotFalse": "IS NOT FALSE",
}
_FUNCTIONS = {"array_has", "lower", "upper", "starts_with"}  # none of which fails on any value


class _NotPushedError(Exception):
    """An expression that is left to DataFusion."""


def store_condition(plan: Any, parse: Callable[[str], Any]) -> str | None:
    """A condition that all rows used by a query fulfil; None if there is none.

    It consists of the conjuncts of the WHERE directly above the only scan of the table. Each is
    written as SQL from DataFusion's parsed expression, and dropped unless parsing the SQL gives the
    same expression.

    Args:
        plan: the query's logical plan before optimisation.
        parse: parses a condition to DataFusion's expression.
    """
    # Unlike `inputs`, the display includes scans in subqueries. A literal that looks like a scan
    # merely disables the pushdown.
    if plan.display_indent().count("TableScan:") != 1:
        return None
    conditions = []
    for conjunct in _conjuncts_on_scan(plan):
        try:
            condition = _sql(conjunct)
            if parse(condition).to_bytes() == conjunct.to_bytes():
                conditions.append(condition)
        except Exception:  # of any kind, as DataFusion applies the condition in any case
            continue
    return " AND ".join(conditions) or None


def _conjuncts_on_scan(plan: Any) -> Iterator[Any]:
    from datafusion.expr import Filter, TableScan

    node = plan.to_variant()
    inputs = plan.inputs()
    if isinstance(node, Filter) and isinstance(inputs[0].to_variant(), TableScan):
        yield from _conjuncts(node.predicate())
    for child in inputs:
        yield from _conjuncts_on_scan(child)


def _conjuncts(expression: Any) -> Iterator[Any]:
    if expression.variant_name() == "BinaryExpr" and expression.rex_call_operator() == "AND":
        for operand in expression.rex_call_operands():
            yield from _conjuncts(operand)
    else:
        yield expression


def _sql(expression: Any) -> str:
    """Writes an expression as SQL with unqualified names, in parentheses.

    Raises:
        _NotPushedError: a part of it cannot be pushed down.
    """
    kind = expression.variant_name()
    if kind == "Column":
        name: str = expression.to_variant().name()
        if name == VECTOR:
            raise _NotPushedError
        return sql_name(name)
    if kind == "Literal":
        return _literal(expression.python_value().as_py())
    operator: str = expression.rex_call_operator()
    operands = [_sql(operand) for operand in expression.rex_call_operands()]
    negated = kind in ("InList", "Between") and expression.to_variant().negated()
    return "(" + _call(kind, operator, operands, "NOT " if negated else "") + ")"


def _call(kind: str, operator: str, operands: Sequence[str], negation: str) -> str:
    first, *others = operands
    if kind == "BinaryExpr" and operator in _COMPARISONS:
        return f"{first} {operator} {others[0]}"
    if kind in _SUFFIXES:
        return f"{first} {_SUFFIXES[kind]}"
    if kind == "Not":
        return f"NOT {first}"
    if kind == "Like":
        return f"{first} {operator} {others[0]}"
    if kind == "InList":
        return f"{first} {negation}IN ({', '.join(others)})"
    if kind == "Between":
        return f"{first} {negation}BETWEEN {others[0]} AND {others[1]}"
    if kind == "ScalarFunction" and operator in _FUNCTIONS:
        return f"{operator}({', '.join(operands)})"
    raise _NotPushedError


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return sql_literal(value)
    raise _NotPushedError
