"""`rsicd-embed bench ann`: what vector stores find, how fast, and beside their libraries."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.bench.ann_lines import lines
from rsicd_embed.cli.bench.base import Recorded, command_line, finish, record_options, teller

if TYPE_CHECKING:
    from rsicd_embed.bench.ann.vectors import Source

NAME = "bench-ann"
_ROWS, _DIM = 10_000, 512
_SAMPLE_S = 0.1


def _percents(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """`10,0.1` → (10.0, 0.1)."""
    try:
        return tuple(float(one) for one in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"expected percents such as 10,0.1, found {value!r}") from None


@click.command(cls=Recorded)
@click.option("--store", "store_uri", metavar="URI", help="Take the vectors of this store.")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="Take those of a .npy matrix, or of a Parquet file's column `vector`.",
)
@click.option("--rows", type=click.IntRange(1), help=f"Generate so many.  [default: {_ROWS}]")
@click.option("--dim", type=click.IntRange(1), help=f"Of generated ones.  [default: {_DIM}]")
@click.option(
    "--kind",
    type=click.Choice(["clustered", "uniform"]),
    help="Of generated ones; uniform is the hard case.  [default: clustered]",
)
@click.option(
    "--stores",
    default="exact,nmslib,lancedb",
    show_default=True,
    metavar="STORE[?OPTION=VALUE],…",
    help="What to measure.",
)
@click.option("--k", default=10, show_default=True, type=click.IntRange(1), help="Rows a query.")
@click.option(
    "--queries", default=300, show_default=True, type=click.IntRange(3), help="Distinct queries."
)
@click.option(
    "--selectivity",
    metavar="PERCENT,…",
    callback=_percents,
    help="Also search under filters that leave so many of the rows, such as 100,10,1,0.1.",
)
@click.option(
    "--builds",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Samples of filling and optimizing, each into new stores.",
)
@click.option(
    "--batch-rows",
    default=10_000,
    show_default=True,
    type=click.IntRange(1),
    help="Rows of an upsert.",
)
@click.option(
    "--batch-queries",
    default=100,
    show_default=True,
    type=click.IntRange(2),
    help="Most queries searched for at once.",
)
@click.option("--no-libraries", is_flag=True, help="Do not call the libraries directly, too.")
@click.option("--one-process", is_flag=True, help="Not each in a process of its own.")
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the stores are made, and removed.  [default: the folder of temporary files]",
)
@record_options
@click.pass_context
def ann(
    context: click.Context,
    store_uri: str | None,
    vectors: Path | None,
    rows: int | None,
    dim: int | None,
    kind: str | None,
    stores: str,
    k: int,
    queries: int,
    selectivity: tuple[float, ...],
    rounds: int,
    builds: int,
    batch_rows: int,
    batch_queries: int,
    seed: int,
    no_libraries: bool,
    one_process: bool,
    scratch: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Time vector stores on the same vectors, each beside its library called directly.

    Every store is filled, searched, optimized and searched again; the right answers are computed
    here, and the rows found are held against them (ANN recall@k). Queries are vectors that were
    held out, rows that were moved a little, and ones as far from any row as texts are.

    A library on its own promises less than a store: no filters or deletions (NMSLib), no exact
    scores, no order among ties. It gets the settings that the store found best.
    """
    from dataclasses import asdict

    from rsicd_embed.bench import record
    from rsicd_embed.bench.ann.kinds import Settings
    from rsicd_embed.bench.ann.run import run as measured
    from rsicd_embed.bench.ann.workload import prepare
    from rsicd_embed.bench.timing import Plan

    named = tuple(dict.fromkeys(one.strip() for one in stores.split(",")))
    settings = Settings(
        named, k, builds, batch_rows, batch_queries, selectivity, not no_libraries, one_process
    )
    settings.check()
    source = _source(store_uri, vectors, {"rows": rows, "dim": dim, "kind": kind}, seed)
    record.claim(output)
    run = record.document(
        "ann",
        {**asdict(settings), "queries": queries, "rounds": rounds, "seed": seed},
        command=command_line(context),
    )
    tell = teller()
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=scratch) as folder:
        tell(f"preparing {source.rows} vectors")
        workload = prepare(source, Path(folder), queries, k, seed)
        kinds = {kind: workload.kinds.count(kind) for kind in dict.fromkeys(workload.kinds)}
        run["vectors"] = {"source": source.name, "rows": workload.rows, "dim": workload.dim}
        run["queries"] = {"count": len(workload.queries), "kinds": kinds}
        run |= measured(
            workload, settings, Plan(rounds, seed, least_s=_SAMPLE_S), Path(folder), tell
        )
    finish(output, NAME, run, lines, as_json=as_json)


def _source(uri: str | None, file: Path | None, made: dict[str, Any], seed: int) -> Source:
    """Where the vectors come from; one place only."""
    from rsicd_embed.bench.ann import vectors

    given = {name: value for name, value in made.items() if value is not None}
    if (uri is not None) + (file is not None) + bool(given) > 1:
        raise click.UsageError("expected one of --store, --vectors, and --rows with --dim, --kind")
    if uri is not None:
        return vectors.from_store(uri)
    if file is not None:
        return vectors.from_file(file)
    return vectors.generated(**{"rows": _ROWS, "dim": _DIM, **given}, seed=seed)
