"""Prints the hits of a search, or writes them to a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import F, note, show
from rsicd_embed.cli.terminal_text import counted, value_text
from rsicd_embed.json_output import as_json as json_bytes

if TYPE_CHECKING:
    import pyarrow as pa

    from rsicd_embed.cli.terminal_pictures import Protocol

KINDS = ("table", "json", "csv", "geojson", "parquet", "gpkg", "fgb", "html")
_SUFFIXES = {".htm": "html", ".txt": "table"} | {f".{kind}": kind for kind in KINDS[1:]}
_SHEETS = (".html", ".htm")
_BATCH_ROWS = 1000
# Columns that the text output prints elsewhere or leaves out.
_HIDDEN = (
    *(
        "query",
        "rank",
        "id",
        "score",
        "uri",
        "sha256",
        "object_etag",
        "width",
        "height",
        "geometry",
    ),
    "score_percentile",
)


def format_options(command: F) -> F:
    """Adds the options that control how hits are printed, and where."""
    for option in (
        click.option(
            "--preview/--no-preview",
            default=True,
            help="Show thumbnails in terminals that support images (kitty, iTerm, sixel).  "
            "[default: preview]",
        ),
        click.option(
            "--open", "open_sheet", is_flag=True, help="Show the hits as a page in the browser."
        ),
        click.option(
            "--html",
            "sheet",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Also write the hits and their images to one HTML file.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write the hits to this file; the suffix selects the format.",
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Also replace existing files that rsicd-embed did not write.",
        ),
        click.option(
            "--format", "kind", type=click.Choice(KINDS), help="Output format.  [default: table]"
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Destination:
    """The output of a search: its format and destinations.

    Attributes:
        kind: one of `KINDS`.
        output: the file; None for stdout.
        sheet: a page with the images to write as well; None for a temporary one.
        draw: whether to write that page.
        open_sheet: whether to open it.
        protocol: how the terminal shows pictures; None if it does not.
    """

    kind: str
    output: Path | None
    sheet: Path | None
    draw: bool
    open_sheet: bool
    protocol: Protocol | None

    @classmethod
    def of(
        cls,
        kind: str | None,
        output: Path | None,
        sheet: Path | None,
        open_sheet: bool,
        as_json: bool,
        preview: bool,
        force: bool,
    ) -> Destination:
        """Combines the options of a command.

        Raises:
            UsageError: they contradict each other, or a file has no known suffix.
            StoreError: a file exists that rsicd-embed did not write, without `force`.
        """
        from rsicd_embed.cli.terminal_pictures import picture_protocol

        if sheet is not None and sheet.suffix.lower() not in _SHEETS:
            raise click.UsageError(f"expected a page named *{' or *'.join(_SHEETS)}, found {sheet}")
        if as_json and kind not in (None, "json"):
            raise click.UsageError(f"expected either --json or --format {kind}, found both")
        if kind is None and as_json:
            kind = "json"
        if kind is None and output is not None:
            kind = _SUFFIXES.get(output.suffix.lower())
            if kind is None:
                raise click.UsageError(
                    f"expected --format, or an output named *{', *'.join(_SUFFIXES)}, "
                    f"found {output}"
                )
        kind = kind or "table"
        if output is not None and _SUFFIXES.get(output.suffix.lower()) != kind:
            names = [suffix for suffix, named in _SUFFIXES.items() if named == kind]
            raise click.UsageError(
                f"expected an output named *{' or *'.join(names)} for --format {kind}, "
                f"found {output}"
            )
        if kind in ("parquet", "gpkg", "fgb", "html") and output is None:
            raise click.UsageError(f"expected -o FILE for --format {kind}, found none")
        if output is not None or sheet is not None:
            from rsicd_embed.query.generated_files import require_replaceable

            for path, as_kind in ((output, kind), (sheet, "html")):
                if path is not None:
                    require_replaceable(path, as_kind, force=force)
        shows = preview and kind == "table" and output is None and sys.stdout.isatty()
        protocol = picture_protocol(os.environ) if shows else None
        draw = sheet is not None or open_sheet
        return cls(kind, output, sheet, draw, open_sheet, protocol)


def write_hits(
    hits: pa.Table,
    destination: Destination,
    title: str,
    head: dict[str, Any],
    tail: dict[str, Any],
) -> None:
    """Prints or writes hits, a thousand at a time.

    Args:
        hits: hits of one query.
        destination: where they go.
        title: title of a page of hits.
        head, tail: fields of the JSON document before and after the hits.
    """
    from rsicd_embed.query import table_files

    output, kind = destination.output, destination.kind
    if destination.draw:
        _draw(hits, title, destination.sheet, open_sheet=destination.open_sheet)
    if kind == "html":
        _draw(hits, title, output, open_sheet=False)
    elif kind in ("csv", "geojson", "parquet", "gpkg", "fgb"):
        batches = hits.to_batches(max_chunksize=_BATCH_ROWS)
        if output is None:
            for piece in table_files.encoded(batches, hits.schema, kind):  # type: ignore[arg-type]
                click.echo(piece, nl=False)
        else:
            table_files.save(batches, hits.schema, kind, output, note)  # type: ignore[arg-type]
    elif output is not None:
        pieces = _document(hits, head, tail) if kind == "json" else _encoded_lines(hits)
        table_files.save_pieces(pieces, output)
    elif kind == "json":
        for piece in _document(hits, head, tail):
            click.echo(piece, nl=False)
    else:
        for hit in _rows(hits):
            show(_line(hit), uri=hit["uri"])
            if destination.protocol is not None and hit["uri"]:
                _show_picture(hit["uri"], destination.protocol)
    if output is not None and kind != "html":
        note(f"{counted(len(hits), 'hit')} in {output}")


def _document(hits: pa.Table, head: dict[str, Any], tail: dict[str, Any]) -> Iterator[bytes]:
    """The JSON document `{…head, "hits": […], …tail}`."""
    yield json_bytes(head)[:-1] + b', "hits": ['
    for place, hit in enumerate(_rows(hits)):
        del hit["query"]
        yield (b", " if place else b"") + json_bytes(hit)
    yield b"], " + json_bytes(tail)[1:] + b"\n"


def _encoded_lines(hits: pa.Table) -> Iterator[bytes]:
    for hit in _rows(hits):
        yield (f"{_line(hit)}  {hit['uri'] or ''}".rstrip() + "\n").encode("utf-8", "replace")


def _rows(hits: pa.Table) -> Iterator[dict[str, Any]]:
    from rsicd_embed.records import python_rows

    for start in range(0, len(hits), _BATCH_ROWS):
        yield from python_rows(hits.slice(start, _BATCH_ROWS))


def _line(hit: dict[str, Any]) -> str:
    share = hit.get("score_percentile")
    percentile = "" if share is None else f"{share:.2f}%  "
    attributes = "  ".join(_attributes(hit))
    return f"{hit['rank']:>3}  {hit['score']:+.4f}  {percentile}{hit['id']}  {attributes}".rstrip()


def _show_picture(uri: str, protocol: Protocol) -> None:
    """Prints a thumbnail; nothing for a file that cannot be read, whose link is printed already."""
    from rsicd_embed.cli.terminal_pictures import thumbnail
    from rsicd_embed.errors import ImageError
    from rsicd_embed.images import read_rgb

    try:
        click.echo(thumbnail(read_rgb(uri), protocol))
    except ImageError:
        return


def _draw(hits: pa.Table, title: str, path: Path | None, *, open_sheet: bool) -> None:
    """Writes a contact sheet, to a new temporary folder if `path` is None, and may open it."""
    import tempfile

    from rsicd_embed.pictures.sheets import ContactCard, save_contact_page

    if path is None:
        path = Path(tempfile.mkdtemp(prefix="rsicd-embed-"), "hits.html")
    cards = [
        ContactCard(
            hit["uri"] or b"",
            (f"{hit['rank']}  {hit['score']:+.4f}", *_attributes(hit), hit["id"]),
        )
        for hit in _rows(hits)
    ]
    save_contact_page(title, cards, path)
    note(f"pictures: {path}")
    if open_sheet and click.launch(path.absolute().as_uri()):
        note("no browser could be started; open that file yourself")


def _attributes(hit: dict[str, Any]) -> list[str]:
    """A hit's attributes as `name=value`, without those that its uri repeats."""
    from rsicd_embed.images import SceneWindow

    repeated = ("scene", "window") if SceneWindow.parse(hit["uri"] or "") else ()
    return [
        f"{name}={_short(value)}"
        for name, value in hit.items()
        if name not in _HIDDEN and name not in repeated and value is not None
    ]


def _short(value: Any) -> str:
    """Formats a value; of a list of texts, such as captions, only the first."""
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        value = value[0] if value else ""
    return value_text(value)
