"""`rsicd-embed search`: the images of a store most similar to a text or an image."""

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
    require_text,
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
# Columns that the text output prints elsewhere or leaves out.
_HIDDEN = ("query", "rank", "id", "score", "uri", "sha256", "width", "height", "score_percentile")


@click.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(path_type=Path), help="Query image, instead of TEXT.")
@store_option
@as_of_option
@model_option("the model that made the store")
@click.option(
    "-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Number of hits."
)
@click.option("--where", metavar="SQL", help="Only rows that match this SQL predicate.")
@click.option(
    "--html",
    "sheet",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the hits and their images to one HTML file.",
)
@click.option("--open", "open_sheet", is_flag=True, help="Open that file in a browser.")
@click.option(
    "--explain",
    is_flag=True,
    help="Compare scores with those of all rows: the percentile of each hit (the share of rows "
    "that score below it), and how far the best hit is above the mean. Reads every vector.",
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
    open_sheet: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Search a store by text or by image."""
    import rsicd_embed
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.records import python_rows
    from rsicd_embed.stores import score_distribution

    if (text is None) == (image is None):
        raise click.UsageError("expected either TEXT or --image FILE")
    if text is not None:
        require_text(text)
    if sheet is not None and sheet.suffix.lower() not in _SHEETS:
        raise click.UsageError(f"expected a page named *{' or *'.join(_SHEETS)}: {sheet}")
    with rsicd_embed.open_store(store_uri) as newest, store_version(newest, as_of) as store:
        embedder = load_model_of(store, store_uri, model)
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
    if sheet is not None or open_sheet:
        _draw(hits, text if text is not None else f"like {image}", sheet, open_sheet=open_sheet)
    if as_json:
        print_json(
            {
                "query": text if text is not None else str(image),
                "model": embedder.name,
                "store": store_uri,
                "hits": [{n: v for n, v in hit.items() if n != "query"} for hit in hits],
                "warnings": warnings,
                **({} if scores is None else {"explain": _statistics(scores, hits)}),
            }
        )
        return
    for hit in hits:
        attributes = "  ".join(_attributes(hit))
        percentile = f"{hit['score_percentile']:.2f}%  " if scores is not None else ""
        line = f"{hit['rank']:>3}  {hit['score']:+.4f}  {percentile}{hit['id']}  {attributes}"
        show(line.rstrip(), uri=hit["uri"])
    if scores is not None and hits:
        show(_explanation(scores, hits))
    if not hits:
        note("no hits: the store is empty, or no row matches --where")


def load_model_of(store: VectorStore, store_uri: str, model: str | None) -> Embedder:
    """Loads the model that made a store, or the named one if its vectors are the same.

    Raises:
        ModelError: the model cannot be loaded.
        FingerprintError: the named model did not make the store.
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
            f"pass its new path with --model: {error}"
        ) from error
    require_same_model(made_by, provenance(embedder), store_uri, for_queries=True)
    return embedder


def store_version(store: VectorStore, version: str | None) -> VectorStore:
    """Returns a version of a store by tag or number, or the store itself for None.

    Raises:
        StoreError: the store has no such version.
    """
    if version is None:
        return store
    from rsicd_embed.stores.base import require_versioned

    return require_versioned(store).as_of(version)


def _statistics(scores: ScoreDistribution, hits: list[dict[str, Any]]) -> dict[str, Any]:
    """The `explain` object of the JSON output."""
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


def _draw(hits: list[dict[str, Any]], title: str, path: Path | None, *, open_sheet: bool) -> None:
    """Writes a contact sheet, to a new temporary folder if `path` is None, and may open it."""
    import tempfile

    from rsicd_embed.pictures import sheets

    if path is None:
        path = Path(tempfile.mkdtemp(prefix="rsicd-embed-"), "hits.html")
    cards = [
        sheets.ContactCard(
            hit["uri"] or b"",
            (f"{hit['rank']}  {hit['score']:+.4f}", *_attributes(hit), hit["id"]),
        )
        for hit in hits
    ]
    sheets.save_contact_page(title, cards, path)
    note(f"pictures: {path}")
    if open_sheet and click.launch(path.absolute().as_uri()):
        note("no browser could be started; open that file yourself")


def _attributes(hit: dict[str, Any]) -> list[str]:
    """A hit's attributes as `name=value`."""
    return [
        f"{name}={_short(value)}"
        for name, value in hit.items()
        if name not in _HIDDEN and value is not None
    ]


def _short(value: Any) -> str:
    """Formats a value; of a list of texts, such as captions, only the first."""
    if isinstance(value, list) and (not value or isinstance(value[0], str)):
        value = value[0] if value else ""
    return value_text(value)
