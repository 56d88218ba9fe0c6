"""`rsicd-embed search`: the images of a store most similar to texts, images and rows."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import (
    as_of_option,
    json_option,
    model_option,
    note,
    require_text,
    show,
    store_option,
    warn,
)
from rsicd_embed.cli.hit_output import Destination, format_options, write_hits

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.query.composed import Part, Query
    from rsicd_embed.stores.base import VectorStore
    from rsicd_embed.stores.score_distribution import ScoreDistribution


def _overlap(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Parses the optional number after --merge."""
    if text is None:
        return None
    from rsicd_embed.query.composed import MERGE

    try:
        return float(text) if text else MERGE
    except ValueError:
        raise click.BadParameter(
            f"expected a number after --merge, or another option, found {text!r}"
        ) from None


@click.command()
@click.argument("texts", metavar="[TEXT]…", nargs=-1)
@click.option(
    "--image",
    "images",
    metavar="FILE",
    type=click.Path(),
    multiple=True,
    help="Query image; repeatable.",
)
@click.option("--not", "avoided", metavar="TEXT", multiple=True, help="Text to avoid; repeatable.")
@click.option("--like", metavar="ID", multiple=True, help="Row to resemble; repeatable.")
@click.option("--unlike", metavar="ID", multiple=True, help="Row to avoid; repeatable.")
@store_option
@as_of_option
@model_option("the model of the store")
@click.option(
    "-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Number of hits."
)
@click.option(
    "--all", "every", is_flag=True, help="Return all hits above --min-score instead of the best -k."
)
@click.option(
    "--offset",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Number of best hits to skip.",
)
@click.option("--min-score", type=float, metavar="S", help="Minimum score of a hit, from -1 to 1.")
@click.option("--where", metavar="SQL", help="Only rows that match this SQL condition.")
@click.option(
    "--within",
    metavar="PLACE",
    help="Only rows whose footprints intersect minlon,minlat,maxlon,maxlat or the polygons of a "
    "GeoJSON file.",
)
@click.option(
    "--near",
    metavar="LON,LAT,RADIUS",
    help="Only rows within a geodesic distance of a place, such as 2.35,48.86,5km.",
)
@click.option(
    "--contained", is_flag=True, help="Only rows that lie entirely inside --within and --near."
)
@click.option(
    "--merge",
    metavar="[IOU]",
    is_flag=False,
    flag_value="",
    callback=_overlap,
    help="Keep only the best of hits whose footprints overlap by at least this intersection over "
    "union.  [without a number: 0.1]",
)
@click.option(
    "--with-examples", is_flag=True, help="Keep the rows of --like and --unlike among the hits."
)
@click.option(
    "--prompts",
    metavar="NAME",
    help="Prompt for texts: an ensemble whose vectors are averaged (aerial, photograph), or a "
    "template with {category} in place of the text.  [default: the text alone]",
)
@click.option(
    "--hybrid",
    is_flag=True,
    help="Fuse similarity with full-text search (BM25) in --text-column, by reciprocal rank.",
)
@click.option(
    "--text-column",
    metavar="NAME",
    help="Column of texts for --hybrid.  [default: caption, captions, text, description or title]",
)
@format_options
@click.option(
    "--explain",
    is_flag=True,
    help="Compare scores with those of all rows: the percentile of each hit (the share of rows "
    "that score below it), and how far the best hit is above the mean. Reads every vector.",
)
@json_option
def search(
    texts: tuple[str, ...],
    images: tuple[str, ...],
    avoided: tuple[str, ...],
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    store_uri: str,
    model: str | None,
    k: int,
    every: bool,
    offset: int,
    min_score: float | None,
    where: str | None,
    within: str | None,
    near: str | None,
    contained: bool,
    merge: float | None,
    with_examples: bool,
    prompts: str | None,
    hybrid: bool,
    text_column: str | None,
    as_of: str | None,
    kind: str | None,
    output: Path | None,
    sheet: Path | None,
    open_sheet: bool,
    preview: bool,
    force: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Search a store by texts, images and rows.

    All parts form one query with one ranked list of hits. A number before a text, file or id, such
    as 2*, multiplies its weight. A text to avoid (--not) has half the weight of a wanted part, and
    a row (--unlike) a quarter; several parts to avoid share the weight of the strongest of them.
    Rows given as examples are left out of the hits.

    \b
    rsicd-embed search harbour "2*boats" --not "oil tanks" --store lancedb:./tiles
    """
    import pyarrow as pa

    import rsicd_embed
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.query.composed import parse_all, query_vector
    from rsicd_embed.query.search import hits as ranked_hits
    from rsicd_embed.stores import score_distribution

    for text in (*texts, *avoided):
        require_text(text)
    destination = Destination.of(kind, output, sheet, open_sheet, as_json, preview, force)
    parts = parse_all(texts=texts, images=images, like=like, avoided=avoided, unlike=unlike)
    if not parts:
        raise click.UsageError("expected TEXT, --image FILE or --like ID")
    query = rsicd_embed.Query(
        parts,
        k=None if every else k,
        offset=offset,
        where=where,
        within=None if within is None else rsicd_embed.Area.parse(within),
        near=None if near is None else rsicd_embed.Near.parse(near),
        contained=contained,
        merge=merge,
        min_score=min_score,
        with_examples=with_examples,
        prompts=prompts,
        hybrid=hybrid,
        text_column=text_column,
    )
    with rsicd_embed.open_store(store_uri) as newest, store_version(newest, as_of) as store:
        load = cache(lambda: load_model_of(store, store_uri, model))
        name = load().name if model else store.provenance.model
        vector = query_vector(query, store, load)
        hits = ranked_hits(query, vector, store)
        scores = score_distribution.measure(store, vector[None]) if explain else None
        warnings = word_warnings(load(), query.texts) if query.texts else []
    for line in warnings:
        warn(line)
    if scores is not None:
        percentiles = [scores.percentile(score) for score in hits["score"].to_pylist()]
        hits = hits.append_column("score_percentile", pa.array(percentiles, pa.float64()))
    best = hits["score"][0].as_py() if len(hits) else None
    by_example = len(query.parts) == 1 and not query.texts
    head = {
        "query": query.title,
        "parts": [_part_as_json(part) for part in query.parts],
        "model": name,
        "store": store_uri,
    }
    tail: dict[str, Any] = {"warnings": warnings}
    if scores is not None:
        tail["explain"] = _statistics(scores, best)
    write_hits(hits, destination, f"{'like ' * by_example}{query.title}", head, tail)
    if destination.kind == "table" and scores is not None and best is not None:
        show(_explanation(scores, best))
    if not len(hits):
        note(f"no hits: {_reason(query)}")


def _part_as_json(part: Part) -> dict[str, Any]:
    named = {"text": part.text, "image": part.image, "id": part.id}
    return {n: v for n, v in named.items() if v is not None} | {"weight": part.weight}


def _reason(query: Query) -> str:
    """Why there may be no hits."""
    options = {
        "--where": query.where is not None,
        "--within": query.within is not None,
        "--near": query.near is not None,
        "--min-score": query.min_score is not None,
    }
    limits = " and ".join(name for name, given in options.items() if given) or "--where"
    offset = ", or --offset skips all" if query.offset else ""
    return f"the store is empty, or no row matches {limits}{offset}"


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


def _statistics(scores: ScoreDistribution, best: float | None) -> dict[str, Any]:
    """The `explain` object of the JSON output."""
    return {
        "rows": scores.rows,
        "mean": scores.mean,
        "median": scores.median,
        "standard_deviation": scores.standard_deviation,
        "best_deviations": None if best is None else scores.deviations(best),
    }


def _explanation(scores: ScoreDistribution, best: float) -> str:
    deviations = scores.deviations(best)
    above = f"; the best hit is {deviations:.1f} standard deviations above it"
    return (
        f"%: share of the store's {scores.rows:,} rows that score below the hit. Their mean score "
        f"for this query is {scores.mean:+.4f} ± {scores.standard_deviation:.4f}"
        f"{'' if deviations is None else above}"
    )
