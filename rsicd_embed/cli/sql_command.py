"""`rsicd-embed sql`: SQL over the rows of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import as_of_option, json_option, model_option, show, store_option
from rsicd_embed.cli.terminal_text import clipped, printable, value_text
from rsicd_embed.json_output import as_json as json_bytes
from rsicd_embed.parallel import batched

if TYPE_CHECKING:
    import pyarrow as pa


@click.command()
@click.argument("query")
@store_option
@as_of_option
@model_option("the model that made the store")
@json_option
def sql(query: str, store_uri: str, as_of: str | None, model: str | None, as_json: bool) -> None:
    """Ask a store in SQL, with similarity to a text or an image.

    The rows are the table images; similarity('a text') and similarity_image('image.jpg') are the
    scores that search gives. The dialect is DataFusion's. Queries only read.

    \b
    rsicd-embed sql "SELECT label, count(*) AS n, avg(similarity('a beach')) AS beach
      FROM images GROUP BY label ORDER BY beach DESC LIMIT 5" --store lancedb:./tiles
    """
    if query.encode("utf-8", "replace").decode() != query:
        raise click.UsageError("QUERY is not UTF-8")
    import rsicd_embed
    from rsicd_embed.cli.search_command import embedder_for, state_of
    from rsicd_embed.query import run

    with (
        rsicd_embed.open_store(store_uri) as newest,
        state_of(newest, as_of) as store,
        run(query, store, lambda: embedder_for(store, store_uri, model)) as reader,
    ):
        (print_rows_as_json if as_json else print_rows)(reader)


_HEAD_ROWS = 1000  # computed before anything is printed: the columns' widths, and early failures


def print_rows_as_json(reader: pa.RecordBatchReader) -> None:
    """`{"columns": […], "rows": [[…]…]}`, written as the rows come."""
    rows = batched(_rows(reader), _HEAD_ROWS)
    head = next(rows, [])
    click.echo(b'{"columns": ' + json_bytes(reader.schema.names) + b', "rows": [', nl=False)
    click.echo(b", ".join(map(json_bytes, head)), nl=False)
    for some in rows:
        click.echo(b"".join(b", " + json_bytes(row) for row in some), nl=False)
    click.echo(b"]}")


def print_rows(reader: pa.RecordBatchReader) -> None:
    """A table with a line for each row; columns are as wide as their first thousand values."""
    import pyarrow.types as pt

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
    import pyarrow.types as pt

    from rsicd_embed.records import python_values

    kind = column.type
    if pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return [None if one is None else one.hex() for one in column.to_pylist()]
    return python_values(column)
