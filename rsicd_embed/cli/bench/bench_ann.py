"""`rsicd-embed bench ann`: what vector stores find, how fast, and beside their libraries."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import model_option, note
from rsicd_embed.cli.bench.ann_lines import lines
from rsicd_embed.cli.bench.base import (
    Recorded,
    command_line,
    counts,
    finish,
    record_options,
)
from rsicd_embed.parallel import cpu_count

if TYPE_CHECKING:
    from rsicd_embed.bench.ann.vectors import VectorSource

NAME = "bench-ann"
_ROWS, _DIM = 10_000, 512
_SAMPLE_S = 0.04
_ROUNDS = 7
_TRUSTED = 0.99


def _percents(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """`10,0.1` → (10.0, 0.1)."""
    try:
        return tuple(float(one) for one in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"expected percents such as 10,0.1, found {value!r}") from None


@click.command(cls=Recorded, context_settings={"default_map": {"rounds": _ROUNDS}})
@click.option("--store", "store_uri", metavar="URI", help="Take the vectors of this store.")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="Take those of a .npy matrix, of a Parquet file's column `vector`, or of an HDF5 file as "
    "ann-benchmarks has them, with its queries.",
)
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Search --store for these texts, one a line, instead of for vectors like its own.",
)
@model_option("the bundled model; for --texts")
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
@click.option(
    "--k",
    "ks",
    default="10",
    show_default=True,
    metavar="K,…",
    callback=counts,
    help="Rows a query; the tables and ratios of several stand one below the other.",
)
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
@click.option(
    "--clients",
    metavar="N,…",
    callback=counts,
    help="How many clients search for many queries at once at the same time.  "
    "[default: 1 and the number of processors]",
)
@click.option(
    "--sweep",
    multiple=True,
    metavar="NAME=N,N,…",
    help="What to try of efSearch (graphs), nprobes and refine (LanceDB's index); repeatable.  "
    "[default: ladders of each]",
)
@click.option("--no-sweep", is_flag=True, help="Only the settings that the stores find best.")
@click.option(
    "--against",
    metavar="NAMES",
    help="Other libraries as lines to compare with: hnswlib,faiss,usearch or none.  "
    "[default: those that are installed]",
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
    texts: Path | None,
    model: str | None,
    rows: int | None,
    dim: int | None,
    kind: str | None,
    stores: str,
    ks: tuple[int, ...],
    queries: int,
    selectivity: tuple[float, ...],
    rounds: int,
    builds: int,
    batch_rows: int,
    batch_queries: int,
    clients: tuple[int, ...],
    sweep: tuple[str, ...],
    no_sweep: bool,
    against: str | None,
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
    held out, rows that were moved a little, and ones as far from any row as texts are; or those
    that a file gives.

    Then each index is searched with several settings, which take turns, for the curve of what it
    finds against the time it takes. An interrupted run keeps what was measured.

    A library on its own promises less than a store: no filters or deletions (NMSLib), no exact
    scores, no order among ties. It gets the settings that the store found best.
    """
    from rsicd_embed.bench import reference_choice
    from rsicd_embed.bench.ann import reference_libraries
    from rsicd_embed.bench.ann.ann_run import run as measured
    from rsicd_embed.bench.ann.contender_specs import AnnSettings
    from rsicd_embed.bench.ann.ground_truth import Truth
    from rsicd_embed.bench.ann.sweep import ladders
    from rsicd_embed.bench.ann.workload import prepare
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.reports import record
    from rsicd_embed.reports.timing import TimingPlan

    if sweep and no_sweep:
        raise click.UsageError("expected --sweep or --no-sweep, found both")
    others = reference_choice.choose(
        against, reference_libraries.NEEDS, reference_libraries.PACKAGES
    )
    settings = AnnSettings(
        stores=tuple(dict.fromkeys(one.strip() for one in stores.split(","))),
        ks=ks,
        builds=builds,
        batch_rows=batch_rows,
        batch_queries=batch_queries,
        clients=tuple(dict.fromkeys((1, *(clients or (cpu_count(),))))),
        selectivity=selectivity,
        libraries=not no_libraries,
        references=others.chosen,
        sweep={} if no_sweep else ladders(sweep),
        one_process=one_process,
    )
    settings.check()
    source = _source(store_uri, vectors, {"rows": rows, "dim": dim, "kind": kind}, seed)
    if texts is not None or model is not None:
        source = _asked(source, store_uri, texts, model)
    record.claim(output)
    run = record.document(
        "ann",
        {**settings.as_json(), "queries": queries, "rounds": rounds, "seed": seed},
        command=command_line(context),
    )
    run["left_out"] = others.left_out
    for name, why in others.left_out.items():
        note(f"left out: {name} {why}")
    tell = status_printer()
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-", dir=scratch) as folder:
        tell(f"preparing {source.rows} vectors")
        workload = prepare(source, Path(folder), queries, max(ks), seed)
        kinds = {kind: workload.kinds.count(kind) for kind in dict.fromkeys(workload.kinds)}
        run["vectors"] = {"source": source.name, "rows": workload.rows, "dim": workload.dim}
        run["queries"] = {"count": len(workload.queries), "kinds": kinds}
        told = Truth(workload, min(ks)).of_neighbours()
        if told is not None:
            run["queries"]["ann_recall_of_their_neighbours"] = told
            if told < _TRUSTED:
                note(
                    f"what {source.name} calls the nearest rows is not: ANN recall@{min(ks)} "
                    f"{told:.3f}; it is not used"
                )
        run |= measured(
            workload, settings, TimingPlan(rounds, seed, least_s=_SAMPLE_S), Path(folder), tell
        )
    finish(output, NAME, run, lines, as_json=as_json)


def _asked(
    source: VectorSource, uri: str | None, texts: Path | None, model: str | None
) -> VectorSource:
    """The vectors of a store, to be searched for texts by the model that made them."""
    from dataclasses import replace

    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import BenchError
    from rsicd_embed.stores.base import open_store

    if texts is None or uri is None:
        raise click.UsageError("expected --texts with --store, and --model with both")
    try:
        lines = texts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{texts}: expected texts in UTF-8, one a line: {error}") from None
    wanted = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not wanted:
        raise BenchError(f"{texts}: expected texts, one a line, found none")
    embedder = load_for_a_query(model)
    open_store(uri, provenance(embedder), create=False).close()  # refuses another model's
    return replace(source, queries=embedder.embed_texts(wanted))


def _source(uri: str | None, file: Path | None, made: dict[str, Any], seed: int) -> VectorSource:
    """Where the vectors come from; one place only."""
    from rsicd_embed.bench.ann import vector_files, vectors

    given = {name: value for name, value in made.items() if value is not None}
    if (uri is not None) + (file is not None) + bool(given) > 1:
        raise click.UsageError("expected one of --store, --vectors, and --rows with --dim, --kind")
    if uri is not None:
        return vectors.from_store(uri)
    if file is not None:
        return vector_files.from_file(file)
    return vectors.generated(**{"rows": _ROWS, "dim": _DIM, **given}, seed=seed)
