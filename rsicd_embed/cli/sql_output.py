"""The result of a SQL query on stdout, as JSON or as a table, however many rows it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import click
import pyarrow as pa
import pyarrow.types as pt

from rsicd_embed.cli.base import printable, show
from rsicd_embed.cli.value_text import clipped, value_text
from rsicd_embed.json_output import as_json
from rsicd_embed.parallel import batched
from rsicd_embed.records import python_values

_HEAD_ROWS = 1000  # computed before anything is printed: the columns' widths, and early failures


def print_rows_as_json(reader: pa.RecordBatchReader) -> None:
    """`{"columns": […], "rows": [[…]…]}`, written as the rows come."""
    rows = batched(_rows(reader), _HEAD_ROWS)
    head = next(rows, [])
    click.echo(b'{"columns": ' + as_json(reader.schema.names) + b', "rows": [', nl=False)
    click.echo(b", ".join(map(as_json, head)), nl=False)
    for some in rows:
        click.echo(b"".join(b", " + as_json(row) for row in some), nl=False)
    click.echo(b"]}")


def print_rows(reader: pa.RecordBatchReader) -> None:
    """A table with a line for each row; columns are as wide as their first thousand values."""
    names, kinds = reader.schema.names, reader.schema.types
    rest = ([value_text(value) for value in row] for row in _rows(reader))
    head = list(islice(rest, _HEAD_ROWS))
    lines = [[clipped(printable(name)) for name in names], *head]
    widths = [max(len(line[place]) for line in lines) for place in range(len(names))]
    right = [pt.is_integer(kind) or pt.is_floating(kind) for kind in kinds]
    places = [str.rjust if one else str.ljust for one in right]
    show(_line(lines[0], widths, places))
    show("  ".join("-" * width for width in widths))
    for line in chain(head, rest):
        show(_line(line, widths, places))


def _line(
    cells: Sequence[str], widths: Sequence[int], places: Sequence[Callable[[str, int], str]]
) -> str:
    placed = (place(cell, n) for cell, n, place in zip(cells, widths, places, strict=True))
    return "  ".join(placed).rstrip()


def _rows(reader: Iterable[pa.RecordBatch]) -> Iterator[list[Any]]:
    for batch in reader:
        columns = [_values(column) for column in batch.columns]
        for row in range(len(batch)):
            yield [column[row] for column in columns]


def _values(column: pa.Array) -> list[Any]:
    """What JSON can hold, or says as text: bytes in hexadecimal, times to the microsecond."""
    kind = column.type
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return [None if one is None else one.hex() for one in column.to_pylist()]
    return python_values(column)
