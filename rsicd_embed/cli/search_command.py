"""`rsicd-embed search`: text or image → the most similar images of a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import (
    as_of_option,
    json_option,
    model_option,
    note,
    print_json,
    show,
    store_option,
    warn,
)
from rsicd_embed.cli.terminal_text import value_text

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.stores.base import VectorStore
    from rsicd_embed.stores.score_distribution import ScoreDistribution

_SHEETS = (".html", ".htm")
# Columns that a person does not read in a list of hits.
_HIDDEN = ("query", "rank", "id", "score", "uri", "sha256", "width", "height", "score_percentile")


@click.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(path_type=Path), help="Search by this image instead.")
@store_option
@as_of_option
@model_option("the model that made the store")
@click.option("-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Hits wanted.")
@click.option("--where", metavar="SQL", help="Only rows for which this predicate is true.")
@click.option(
    "--html",
    "sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the hits and their pictures into one HTML file.",
)
@click.option("--open", "show_sheet", is_flag=True, help="Show that file in a browser.")
@click.option(
    "--explain",
    is_flag=True,
    help="Compare the scores with those of all rows of the store: each hit's percentile, which is "
    "the share of rows that score below it, and how far the best hit is above the mean. Reads "
    "every vector.",
)
@json_option
def search(
    text: str | None,
    image: Path | None,
    store_uri: str,
    model: str | None,
    k: int,
    where: str | None,
    as_of: str | None,
    sheet: Path | None,
    show_sheet: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Find images by words, or by an image."""
    import rsicd_embed
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.records import python_rows
    from rsicd_embed.stores import score_distribution

    if (text is None) == (image is None):
        raise click.UsageError("give either TEXT or --image FILE")
    if text is not None and text.encode("utf-8", "replace").decode() != text:
        raise click.UsageError("TEXT is not UTF-8")
    if text is not None and not text.strip():
        raise click.UsageError("expected a text, found an empty one")
    if sheet is not None and sheet.suffix.lower() not in _SHEETS:
        raise click.UsageError(f"expected a page named *{' or *'.join(_SHEETS)}: {sheet}")
    with rsicd_embed.open_store(store_uri) as newest, state_of(newest, as_of) as store:
        embedder = embedder_for(store, store_uri, model)
        if text is not None:
            queries = embedder.embed_texts([text])
        else:
            queries = embedder.embed_images([str(image)])
        hits = python_rows(store.search(queries, k=k, where=where))
        scores = score_distribution.measure(store, queries) if explain else None
    warnings = word_warnings(embedder, [] if text is None else [text])
    for line in warnings:
        warn(line)
    if scores is not None:
        hits = [hit | {"score_percentile": scores.percentile(hit["score"])} for hit in hits]
    if sheet is not None or show_sheet:
        _draw(hits, text if text is not None else f"like {image}", sheet, show=show_sheet)
    if as_json:
        print_json(
            {
                "query": text if text is not None else str(image),
                "model": embedder.name,
                "store": store_uri,
                "hits": [{n: v for n, v in hit.items() if n != "query"} for hit in hits],
                "warnings": warnings,
                **({} if scores is None else {"explain": _compared(scores, hits)}),
            }
        )
        return
    for hit in hits:
        rest = "  ".join(_told(hit))
        percentile = f"{hit['score_percentile']:.2f}%  " if scores is not None else ""
        line = f"{hit['rank']:>3}  {hit['score']:+.4f}  {percentile}{hit['id']}  {rest}"
        show(line.rstrip(), uri=hit["uri"])
    if scores is not None and hits:
        show(_explanation(scores, hits))
    if not hits:
        note("no hits: the store is empty, or no row matches --where")


def _compared(scores: ScoreDistribution, hits: list[dict[str, Any]]) -> dict[str, Any]:
    """The scores of all rows, and the best hit among them, for JSON."""
    return {
        "rows": scores.rows,
        "mean": scores.mean,
        "median": scores.median,
        "standard_deviation": scores.standard_deviation,
        "best_deviations": scores.deviations(hits[0]["score"]) if hits else None,
    }


def _explanation(scores: ScoreDistribution, hits: list[dict[str, Any]]) -> str:
    best = scores.deviations(hits[0]["score"])
    above = "" if best is None else f"; the best hit is {best:.1f} standard deviations above it"
    return (
        f"%: share of the store's {scores.rows:,} rows that score below the hit. Their mean score "
        f"for this query is {scores.mean:+.4f} ± {scores.standard_deviation:.4f}{above}"
    )


def _draw(hits: list[dict[str, Any]], title: str, path: Path | None, *, show: bool) -> None:
    """Writes a contact sheet, into a file that stays when none is named, and shows it if wanted."""
    import tempfile

    from rsicd_embed.pictures import contact_page

    if path is None:
        path = Path(tempfile.mkdtemp(prefix="rsicd-embed-"), "hits.html")
    cards = [
        contact_page.SheetHit(
            hit["uri"] or b"", (f"{hit['rank']}  {hit['score']:+.4f}", *_told(hit), hit["id"])
        )
        for hit in hits
    ]
    contact_page.save(title, cards, path)
    note(f"pictures: {path}")
    if show and click.launch(path.absolute().as_uri()):
        note("no browser could be started; open that file yourself")


def _told(hit: dict[str, Any]) -> list[str]:
    """What a person reads of a hit's attributes."""
    return [
        f"{name}={_short(value)}"
        for name, value in hit.items()
        if name not in _HIDDEN and value is not None
    ]


def _short(value: Any) -> str:
    """A value in few characters: of several captions the first, of several numbers all."""
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        value = value[0] if value else ""
    return value_text(value)


def embedder_for(store: VectorStore, store_uri: str, model: str | None) -> Embedder:
    """The model that is named, or else the one that made the store; refused if its vectors differ.

    Raises:
        ModelError: it cannot be loaded.
        FingerprintError: it is not the model that made the store.
    """
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import ModelError
    from rsicd_embed.records import require_same_model

    made_by = store.provenance
    try:
        embedder = load_for_a_query(model or made_by.model)
    except ModelError as error:
        if model:
            raise
        raise ModelError(
            f"the model that made {store_uri} cannot be loaded; if it has moved, "
            f"say where with --model: {error}"
        ) from error
    require_same_model(made_by, provenance(embedder), store_uri)
    return embedder


def state_of(store: VectorStore, version: str | None) -> VectorStore:
    """The state of a store that a tag or a number means; the store itself for None.

    Raises:
        StoreError: it has no such state.
    """
    if version is None:
        return store
    from rsicd_embed.stores.base import require_versioned

    return require_versioned(store).as_of(version)
