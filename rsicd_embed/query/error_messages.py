"""DataFusion's errors on a query, in the words of this project."""

from __future__ import annotations

import re

import pyarrow as pa

from rsicd_embed.stores.filters import (
    UNKNOWN_COLUMN,
    clipped,
    plain_words,
    quoted,
    quotes_hint,
)

_ONLY_READS = "expected one query that reads (SELECT … FROM images …), found {}"


def explained(error: BaseException, schema: pa.Schema, table: str, query: str) -> str:
    """What is wrong with a query, in one line.

    Args:
        error: what DataFusion raised.
        schema: of the table.
        table: its name.
        query: its text, where it is still being planned.
    """
    text = str(error)
    columns = ", ".join(quoted(name) for name in schema.names)
    if unknown := re.search(r"table '(?:datafusion\.)?(?:public\.)?(.*?)' not found", text):
        return f"no table {unknown[1]!r}; the only one is {table}"
    if unknown := re.search(r"table function '(.*?)' not found", text):
        return f"no table function {unknown[1]!r}; the only table is {table}"
    if unknown := UNKNOWN_COLUMN.search(text):
        hint = _near(unknown[1], schema) or quotes_hint(unknown[1], query)
        return f"no column {clipped(unknown[1])}; {hint}columns of {table}: {columns}"
    if unknown := re.search(r"Invalid function '(.*?)'\.\s*(Did you mean '.*?'\?)?", text):
        return f"no function {unknown[1]!r}; {(unknown[2] or 'see DataFusion SQL').lower()}"
    if wrong := re.search(r"\"?(?:Parser|Tokenizer)Error\(\"(.*)\"\)", text, flags=re.DOTALL):
        return f"not understood: {' '.join(wrong[1].split())}"
    if refused := re.search(r"(?:DDL|DML|Statement) not supported: (.*)", text):
        return _ONLY_READS.format(refused[1].split("(")[0].strip())
    if refused := re.search(r"Unsupported SQL statement: (\w+)", text):
        return _ONLY_READS.format(refused[1])
    if "single SQL statement" in text:
        return _ONLY_READS.format("several statements")
    if "No SQL statements were provided" in text:
        return _ONLY_READS.format("nothing")
    if "information_schema" in text:
        return f"SHOW is not available; DESCRIBE {table} tells the columns"
    if placeholder := re.search(r"Placeholder\b.*?(\$\w+|\?|:\w+)", text):
        return f"expected a value, found the placeholder {placeholder[1]}; write the value there"
    if wrong := re.search(r"No function matches the given name and argument types '(.*?)'", text):
        return f"no function {wrong[1]}: it takes other types; cast them, or see DataFusion SQL"
    return f"not possible: {plain_words(text) or type(error).__name__}"


def _near(name: str, schema: pa.Schema) -> str:
    last = name.rpartition(".")[2].strip('"').lower()
    same = [quoted(one) for one in schema.names if one.lower() == last]
    return f"did you mean {same[0]}? " if same and "." not in name else ""
