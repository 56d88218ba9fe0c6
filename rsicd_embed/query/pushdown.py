"""Which conditions of a query's WHERE a store can apply by itself, and how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rsicd_embed.records import VECTOR

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
_FUNCTIONS = {"array_has", "lower", "upper", "starts_with"}  # none of them fails on any value


class _NotPushedError(Exception):
    """An expression that is left to DataFusion."""


def store_condition(plan: Any, parse: Callable[[str], Any]) -> str | None:
    """A condition that all rows which a query can use fulfil; None where there is none.

    It is made of the conjuncts of the WHERE right above the one scan of the table. Each is written
    from DataFusion's parsed expression, and dropped unless DataFusion parses what is written to
    that very expression again.

    Args:
        plan: the query's logical plan, not optimised.
        parse: from a condition's text to DataFusion's expression.
    """
    # The display shows scans in subqueries too, which `inputs` does not; a literal that looks like
    # one only adds to the count.
    if plan.display_indent().count("TableScan:") != 1:
        return None
    written = []
    for conjunct in _conjuncts_on_scan(plan):
        try:
            text = _written(conjunct)
            if parse(text).to_bytes() == conjunct.to_bytes():
                written.append(text)
        except Exception:  # of whatever kind: DataFusion applies it in any case
            continue
    return " AND ".join(written) or None


def _conjuncts_on_scan(plan: Any) -> Iterator[Any]:
    from datafusion.expr import Filter, TableScan

    node = plan.to_variant()
    inputs = plan.inputs()
    if isinstance(node, Filter) and isinstance(inputs[0].to_variant(), TableScan):
        yield from _conjuncts(node.predicate())
    for one in inputs:
        yield from _conjuncts_on_scan(one)


def _conjuncts(expression: Any) -> Iterator[Any]:
    if expression.variant_name() == "BinaryExpr" and expression.rex_call_operator() == "AND":
        for operand in expression.rex_call_operands():
            yield from _conjuncts(operand)
    else:
        yield expression


def _written(expression: Any) -> str:
    """An expression as SQL with unqualified names, in parentheses.

    Raises:
        _NotPushedError: there is something in it that a store is not asked.
    """
    kind = expression.variant_name()
    if kind == "Column":
        name: str = expression.to_variant().name()
        if name == VECTOR:
            raise _NotPushedError
        return '"' + name.replace('"', '""') + '"'
    if kind == "Literal":
        return _literal(expression.python_value().as_py())
    operator: str = expression.rex_call_operator()
    operands = [_written(one) for one in expression.rex_call_operands()]
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
        return "'" + value.replace("'", "''") + "'"
    raise _NotPushedError
