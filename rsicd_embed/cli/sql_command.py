"""`rsicd-embed sql`: SQL over the rows of a store."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import as_of_option, json_option, model_option, store_option


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
    from rsicd_embed.cli.query_model import embedder_for, state_of
    from rsicd_embed.cli.sql_output import print_rows, print_rows_as_json
    from rsicd_embed.query import run

    with (
        rsicd_embed.open_store(store_uri) as newest,
        state_of(newest, as_of) as store,
        run(query, store, lambda: embedder_for(store, store_uri, model)) as reader,
    ):
        (print_rows_as_json if as_json else print_rows)(reader)
