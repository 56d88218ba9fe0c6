"""`rsicd-embed sql`: SQL over the rows of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import as_of_option, json_option, model_option, show, store_option
from rsicd_embed.cli.search_command import load_model_of, store_version
from rsicd_embed.cli.terminal_text import clipped, printable, value_text
from rsicd_embed.json_output import as_json as json_bytes
from rsicd_embed.parallel import batched

if TYPE_CHECKING:
    import pyarrow as pa

_HEAD_ROWS = 1000  # read before anything is printed, to set column widths and to fail early


@click.command()
@click.argument("query")
@store_option
@as_of_option
@model_option("the model of the store")
@json_option
def sql(query: str, store_uri: str, as_of: str | None, model: str | None, as_json: bool) -> None:
    """Query a store with SQL and similarity.

    The rows are in the table images. similarity('a text') and similarity_image('image.jpg') return
    the same scores as search. The dialect is DataFusion's; queries are read-only.

    \b
    rsicd-embed sql "SELECT label, count(*) AS n, avg(similarity('a beach')) AS beach
      FROM images GROUP BY label ORDER BY beach DESC LIMIT 5" --store lancedb:./tiles
    """
    if query.encode("utf-8", "replace").decode() != query:
        raise click.UsageError("QUERY is not UTF-8")
    import rsicd_embed
    from rsicd_embed.query.run import run

    with (
        rsicd_embed.open_store(store_uri) as newest,
        store_version(newest, as_of) as store,
        run(query, store, lambda: load_model_of(store, store_uri, model)) as reader,
    ):
        (_print_rows_as_json if as_json else _print_rows)(reader)


def _print_rows_as_json(reader: pa.RecordBatchReader) -> None:
    """Prints `{"columns": […], "rows": [[…]…]}` while rows are read."""
    batches = batched(_rows(reader), _HEAD_ROWS)
    head = next(batches, [])
    click.echo(b'{"columns": ' + json_bytes(reader.schema.names) + b', "rows": [', nl=False)
    click.echo(b", ".join(map(json_bytes, head)), nl=False)
    for rows in batches:
        click.echo(b"".join(b", " + json_bytes(row) for row in rows), nl=False)
    click.echo(b"]}")


def _print_rows(reader: pa.RecordBatchReader) -> None:
    """Prints a table, its columns as wide as their first thousand values."""
    import pyarrow.types as pt

    names, types = reader.schema.names, reader.schema.types
    rows = ([value_text(value) for value in row] for row in _rows(reader))
    head = list(islice(rows, _HEAD_ROWS))
    titles = [clipped(printable(name)) for name in names]
    widths = [max(map(len, column)) for column in zip(titles, *head, strict=True)]
    numeric = [pt.is_integer(type_) or pt.is_floating(type_) for type_ in types]
    justify = [str.rjust if is_numeric else str.ljust for is_numeric in numeric]
    show(_line(titles, widths, justify))
    show("  ".join("-" * width for width in widths))
    for row in chain(head, rows):
        show(_line(row, widths, justify))


def _line(
    cells: Sequence[str], widths: Sequence[int], justify: Sequence[Callable[[str, int], str]]
) -> str:
    padded = (pad(cell, width) for cell, width, pad in zip(cells, widths, justify, strict=True))
    return "  ".join(padded).rstrip()


def _rows(reader: Iterable[pa.RecordBatch]) -> Iterator[list[Any]]:
    for batch in reader:
        columns = [_values(column) for column in batch.columns]
        for row in range(len(batch)):
            yield [column[row] for column in columns]


def _values(column: pa.Array) -> list[Any]:
    """Values that JSON can represent: bytes become hexadecimal text."""
    import pyarrow.types as pt

    from rsicd_embed.records import python_values

    type_ = column.type
    if pt.is_binary(type_) or pt.is_large_binary(type_) or pt.is_binary_view(type_):
        return [None if value is None else value.hex() for value in column.to_pylist()]
    return python_values(column)
