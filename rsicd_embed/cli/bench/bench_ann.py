"""`rsicd-embed bench ann`: ANN recall and latency of vector stores, next to their libraries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from rsicd_embed.cli.base import count_option, model_option, note
from rsicd_embed.cli.bench.ann_lines import lines
from rsicd_embed.cli.bench.base import counts, finish, one_process_option, record_options
from rsicd_embed.cli.record_output import Recorded, command_line
from rsicd_embed.files import temporary_folder
from rsicd_embed.parallel import cpu_count

if TYPE_CHECKING:
    from rsicd_embed.bench.ann.vectors import VectorSource
    from rsicd_embed.reports.record_types import AnnRecord, QueriesInfo

_ROWS, _DIM = 10_000, 512
_SAMPLE_S = 0.04
_ROUNDS = 7
_TRUSTED = 0.99


def _percents(context: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Parses `10,0.1` into (10.0, 0.1)."""
    try:
        return tuple(float(word) for word in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"expected percentages such as 10,0.1, found {value!r}") from None


@click.command(cls=Recorded, context_settings={"default_map": {"rounds": _ROUNDS}})
@click.option("--store", "store_uri", metavar="URI", help="Use the vectors of this store.")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    help="Use the vectors of a .npy matrix, of a Parquet file's column `vector`, or of an HDF5 "
    "file in the layout of ann-benchmarks, with its queries.",
)
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Search --store for the texts of this file, one per line, instead of for vectors similar "
    "to its own.",
)
@model_option("the bundled model; for --texts")
@click.option(
    "--rows",
    type=click.IntRange(1),
    help="Number of generated vectors; with --store or --vectors, add varied copies of those up to "
    f"this number.  [default: {_ROWS}]",
)
@click.option(
    "--dim", type=click.IntRange(1), help=f"Length of generated vectors.  [default: {_DIM}]"
)
@click.option(
    "--kind",
    type=click.Choice(["clustered", "uniform"]),
    help="Distribution of generated vectors; uniform is the hard case.  [default: clustered]",
)
@click.option(
    "--stores",
    default="exact,nmslib,lancedb",
    show_default=True,
    metavar="STORE[?OPTION=VALUE],…",
    help="Stores to measure.",
)
@click.option(
    "--k",
    "ks",
    default="10",
    show_default=True,
    metavar="K,…",
    callback=counts,
    help="Rows per query; several are measured in turn.",
)
@count_option("--queries", default=300, least=3, help="Number of distinct queries.")
@click.option(
    "--selectivity",
    metavar="PERCENT,…",
    callback=_percents,
    help="Also search with filters that leave these percentages of the rows, such as 100,10,1,0.1.",
)
@count_option(
    "--builds", default=1, help="Samples of filling and optimizing, each with new stores."
)
@count_option("--batch-rows", default=10_000, help="Rows per upsert.")
@count_option("--batch-queries", default=100, least=2, help="Maximum number of queries per batch.")
@click.option(
    "--clients",
    metavar="N,…",
    callback=counts,
    help="Numbers of clients that send batches concurrently.  [default: 1 and the number of CPUs]",
)
@click.option(
    "--sweep",
    multiple=True,
    metavar="NAME=N,N,…",
    help="Values to try of efSearch (graphs), nprobes and refine (LanceDB's index); repeatable.  "
    "[default: several of each]",
)
@click.option("--no-sweep", is_flag=True, help="Measure only the settings that the stores choose.")
@click.option(
    "--against",
    metavar="NAMES",
    help="Other libraries to compare with: hnswlib,faiss,usearch or none.  "
    "[default: those installed]",
)
@click.option(
    "--indexes",
    metavar="KIND,…",
    help="Also build LanceDB's indexes of these kinds and search them with all settings: IVF_SQ, "
    "IVF_PQ, IVF_RQ, IVF_HNSW_SQ.",
)
@click.option("--optimized-only", is_flag=True, help="Skip the searches before optimizing.")
@click.option("--no-libraries", is_flag=True, help="Skip the stores' libraries.")
@one_process_option
@click.option(
    "--scratch",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder for temporary stores.  [default: the system's temporary folder]",
)
@record_options
def ann(
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
    indexes: str | None,
    seed: int,
    optimized_only: bool,
    no_libraries: bool,
    one_process: bool,
    scratch: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Time vector stores on the same vectors, each next to its library called directly.

    Every store is filled, searched, optimized and searched again. ANN recall@k is computed against
    exact results. The queries are held-out vectors, rows with a little noise, and vectors as far
    from any row as texts are; or those that a file provides.

    Then each index is searched with several settings, interleaved, to plot ANN recall
    against latency. An interrupted run keeps its results.

    A library guarantees less than a store: no filters or deletions (NMSLib), no exact scores, no
    order among ties. It uses the settings that the store chose.
    """
    from rsicd_embed.bench import reference_models
    from rsicd_embed.bench.ann import ann_run, reference_libraries
    from rsicd_embed.bench.ann.contender_specs import AnnSettings, ladders
    from rsicd_embed.bench.ann.ground_truth import GroundTruth
    from rsicd_embed.bench.ann.workload import prepare
    from rsicd_embed.cli.progress import status_printer
    from rsicd_embed.reports import record
    from rsicd_embed.reports.timing import TimingPlan

    if sweep and no_sweep:
        raise click.UsageError("expected --sweep or --no-sweep, found both")
    choice = reference_models.choose(
        against, reference_libraries.NEEDS, reference_libraries.PACKAGES
    )
    settings = AnnSettings(
        stores=tuple(dict.fromkeys(store.strip() for store in stores.split(","))),
        ks=ks,
        builds=builds,
        batch_rows=batch_rows,
        batch_queries=batch_queries,
        clients=tuple(dict.fromkeys((1, *(clients or (cpu_count(),))))),
        selectivity=selectivity,
        libraries=not no_libraries,
        references=choice.chosen,
        indexes=tuple(dict.fromkeys(kind.strip() for kind in (indexes or "").split(",") if kind)),
        sweep={} if no_sweep else ladders(sweep),
        optimized_only=optimized_only,
        one_process=one_process,
    )
    settings.check()
    source = _source(store_uri, vectors, {"rows": rows, "dim": dim, "kind": kind}, seed)
    if texts is not None or model is not None:
        source = _with_texts(source, store_uri, texts, model)
    record.claim(output)
    head = record.document(
        "ann",
        {**settings.as_json(), "queries": queries, "rounds": rounds, "seed": seed},
        command=command_line(),
    )
    for name, reason in choice.left_out.items():
        note(f"left out: {name} {reason}")
    tell = status_printer()
    with temporary_folder(parent=scratch) as folder:
        tell(f"preparing {source.rows} vectors")
        workload = prepare(source, folder, queries, max(ks), seed)
        kinds = {kind: workload.kinds.count(kind) for kind in dict.fromkeys(workload.kinds)}
        queries_info: QueriesInfo = {"count": len(workload.queries), "kinds": kinds}
        ann_recall = GroundTruth(workload, min(ks)).ann_recall_of_source()
        if ann_recall is not None:
            queries_info["ann_recall_of_their_neighbours"] = ann_recall
            if ann_recall < _TRUSTED:
                note(
                    f"the ground truth of {source.name} is wrong and not used: "
                    f"ANN recall@{min(ks)} {ann_recall:.3f}"
                )
        plan = TimingPlan(rounds, seed, least_s=_SAMPLE_S)
        results = ann_run.run(workload, settings, plan, folder, tell)
    run = cast(
        "AnnRecord",
        {
            **head,
            "left_out": choice.left_out,
            "vectors": {"source": source.name, "rows": workload.rows, "dim": workload.dim},
            "queries": queries_info,
            **results,
        },
    )
    finish(run, output, "bench-ann", lines, as_json=as_json)


def _with_texts(
    source: VectorSource, uri: str | None, texts: Path | None, model: str | None
) -> VectorSource:
    """The vectors of a store, with texts as queries, embedded by the store's model."""
    from rsicd_embed.embedder.base import provenance
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import BenchError
    from rsicd_embed.stores.base import open_store

    if texts is None or uri is None:
        raise click.UsageError("expected --texts with --store, and --model with both")
    try:
        lines = texts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{texts}: expected texts in UTF-8, one per line: {error}") from None
    distinct = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not distinct:
        raise BenchError(f"{texts}: expected texts, one per line, found none")
    embedder = load_for_a_query(model)
    open_store(uri, provenance(embedder), create=False).close()  # fails for another model's store
    return replace(source, queries=embedder.embed_texts(distinct))


def _source(
    uri: str | None, file: Path | None, generate: dict[str, Any], seed: int
) -> VectorSource:
    """The source of the vectors; only one may be given."""
    from rsicd_embed.bench.ann import vectors

    options = {name: value for name, value in generate.items() if value is not None}
    is_given = uri is not None or file is not None
    if (uri is not None and file is not None) or (is_given and options.keys() - {"rows"}):
        raise click.UsageError("expected one of --store, --vectors, and --dim with --kind")
    if is_given:
        source = vectors.from_file(file) if file is not None else vectors.from_store(str(uri))
        return vectors.enlarged(source, options["rows"], seed) if options else source
    return vectors.generated(**{"rows": _ROWS, "dim": _DIM, **options}, seed=seed)
