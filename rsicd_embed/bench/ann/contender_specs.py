"""Settings of `bench ann`, and the contenders to measure: stores, libraries, references."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from rsicd_embed.bench.ann.contenders import (
    NULL,
    Contender,
    LanceTable,
    NmslibIndex,
    NumPy,
    Store,
    store_uri,
)
from rsicd_embed.bench.ann.reference_libraries import CONTENDERS
from rsicd_embed.bench.ann.worker import Make
from rsicd_embed.bench.ann.workload import Workload, threshold
from rsicd_embed.errors import BenchError
from rsicd_embed.stores.nmslib import NmslibStore
from rsicd_embed.stores.uri import StoreURI

INDEX_KINDS = ("IVF_SQ", "IVF_PQ", "IVF_RQ", "IVF_HNSW_SQ")
# Default values of the sweep, from the fastest to the most thorough: candidates kept while walking
# a graph; partitions searched; and rows compared exactly, as a multiple of k.
LADDERS: Mapping[str, tuple[int, ...]] = {
    "efSearch": (20, 50, 100, 200, 400, 800),
    "nprobes": (5, 10, 20, 50, 100),
    "refine": (1, 4),
}
# Search settings by store scheme; they are also options of a store's URI.
KNOBS: Mapping[str, tuple[str, ...]] = {"nmslib": ("efSearch",), "lancedb": ("nprobes", "refine")}


@dataclass(frozen=True)
class AnnSettings:
    """Settings of the benchmark.

    Attributes:
        stores: schemes, optionally with options: `nmslib?M=32`.
        ks: rows per query; some measurements use the first only.
        builds: number of times that all contenders are built, each time from scratch.
        batch_rows: rows per upsert.
        batch_queries: maximum number of queries per batch.
        clients: numbers of clients that send batches concurrently; 1 is the first.
        selectivity: percentages of the rows that match filters.
        libraries: call each store's library directly as well.
        references: other libraries, keys of `reference_libraries.CONTENDERS`.
        indexes: kinds of LanceDB's index, of `INDEX_KINDS`.
        sweep: values to try of each search setting; empty for no sweep.
        optimized_only: do not search before optimizing.
        one_process: run all contenders in this process; memory usage is then not measured.
    """

    stores: tuple[str, ...] = ("exact", "nmslib", "lancedb")
    ks: tuple[int, ...] = (10,)
    builds: int = 1
    batch_rows: int = 10_000
    batch_queries: int = 100
    clients: tuple[int, ...] = (1,)
    selectivity: tuple[float, ...] = ()
    libraries: bool = True
    references: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    sweep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    optimized_only: bool = False
    one_process: bool = False

    @property
    def k(self) -> int:
        """The first of `ks`."""
        return self.ks[0]

    def as_json(self) -> dict[str, object]:
        """The settings of a record."""
        return {"k": self.k, **asdict(self)}

    def check(self) -> None:
        """Checks that everything can be measured.

        Raises:
            BenchError: a store or kind of index is unknown, or a selectivity is out of range.
        """
        for name in self.stores:
            store_uri(name, Path())
        for percent in self.selectivity:
            threshold(percent)
        if unknown := [kind for kind in self.indexes if kind not in INDEX_KINDS]:
            raise BenchError(
                f"expected kinds of index of {', '.join(INDEX_KINDS)}, found {', '.join(unknown)!r}"
            )


@dataclass(frozen=True)
class ContenderSpec:
    """A contender and its files.

    Attributes:
        name, make: see `start_worker`.
        folder: its files; None if it writes none, and is not built.
        filters: whether it supports filters.
        searches_unoptimized: whether it can search before it is optimized.
        steps: combinations of search settings to try.
    """

    name: str
    make: Make
    folder: Path | None
    filters: bool = True
    searches_unoptimized: bool = True
    steps: Sequence[Mapping[str, int]] = ()


def specs_of(
    workload: Workload, settings: AnnSettings, folder: Path
) -> tuple[list[ContenderSpec], dict[str, str]]:
    """The contenders, with files in `folder`, and the library that each store is compared with."""
    specs, pairs = [], {}
    for number, name in enumerate(settings.stores):
        own, library_folder = folder / str(number), folder / f"{number}-library"
        uri = store_uri(name, own)
        steps = _steps(uri, settings)
        specs.append(ContenderSpec(name, partial(Store, uri, workload.dim), own, steps=steps))
        library = f"library of {name}"
        spec = {
            "exact": ContenderSpec(library, partial(NumPy, workload.path), None, filters=False),
            "nmslib": ContenderSpec(
                library,
                partial(_nmslib, library_folder, uri),
                library_folder,
                filters=False,
                searches_unoptimized=False,
            ),
            "lancedb": ContenderSpec(library, partial(LanceTable, library_folder), library_folder),
        }.get(name.partition("?")[0])
        if spec is not None and settings.libraries:
            specs.append(replace(spec, steps=steps))
            pairs[name] = library
    for reference in settings.references:
        for number, (name, contender) in enumerate(CONTENDERS[reference].items()):
            own = folder / f"{reference}-{number}"
            specs.append(
                ContenderSpec(
                    name,
                    partial(contender, own, workload.dim),
                    own,
                    filters=False,
                    searches_unoptimized=False,
                    steps=combinations(contender.knobs, settings.sweep),
                )
            )
    for kind in settings.indexes:
        own = folder / kind
        make = partial(LanceTable, own, index_rows=0, kind=kind)
        steps = combinations(KNOBS["lancedb"], settings.sweep)
        specs.append(
            ContenderSpec(f"LanceDB {kind}", make, own, searches_unoptimized=False, steps=steps)
        )
    specs.append(ContenderSpec(NULL, Contender, None))
    return specs, pairs


def _steps(uri: str, settings: AnnSettings) -> list[dict[str, int]]:
    """The search settings to try of a store; none if its URI sets one of them."""
    parsed = StoreURI.parse(uri)
    knobs = KNOBS.get(parsed.scheme, ())
    if {name for name, _ in parsed.options} & set(knobs):
        return []
    return combinations(knobs, settings.sweep)


def _nmslib(folder: Path, uri: str) -> NmslibIndex:
    return NmslibIndex(folder, NmslibStore.settings(StoreURI.parse(uri)))


def ladders(options: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The values of the sweep: the defaults, replaced by options such as `efSearch=20,50`.

    Raises:
        BenchError: an option has another name, or values that are not positive integers.

    Example:
        >>> ladders(["efSearch=20,50"])["efSearch"], ladders([])["refine"]
        ((20, 50), (1, 4))
    """
    values = dict(LADDERS)
    for option in options:
        name, _, text = option.partition("=")
        words = text.split(",")
        if name not in LADDERS or not all(word.isdigit() and int(word) for word in words):
            raise BenchError(
                f"expected settings to try such as efSearch=20,50 (of {', '.join(LADDERS)}), "
                f"found {option!r}"
            )
        values[name] = tuple(dict.fromkeys(int(word) for word in words))
    return values


def combinations(knobs: Sequence[str], values: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """All combinations of the values of some settings; none without settings or values.

    Example:
        >>> combinations(["nprobes", "refine"], {"nprobes": [5, 9], "refine": [2]})
        [{'nprobes': 5, 'refine': 2}, {'nprobes': 9, 'refine': 2}]
    """
    if not knobs or not values:
        return []
    products = itertools.product(*(values[name] for name in knobs))
    return [dict(zip(knobs, product, strict=True)) for product in products]
