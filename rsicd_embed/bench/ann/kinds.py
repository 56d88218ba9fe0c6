"""Which contenders there are: the stores, the library under each, and nobody."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rsicd_embed.bench.ann.contenders import Null, Store, store_uri
from rsicd_embed.bench.ann.held import Make
from rsicd_embed.bench.ann.libraries import LanceTable, NmslibIndex, NumPy
from rsicd_embed.bench.ann.measure import NULL
from rsicd_embed.bench.ann.workload import Workload, threshold
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.nmslib import NmslibStore


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        stores: schemes, with options if need be: `nmslib?M=32`.
        k: rows for each query.
        builds: how often all are built, each time anew.
        batch_rows: rows of an upsert.
        batch_queries: most queries at once.
        selectivity: percents of the rows that filters leave, each measured too.
        libraries: whether each store's library is called directly, too.
        one_process: not each contender in a process of its own; no memory is told then.
    """

    stores: tuple[str, ...] = ("exact", "nmslib", "lancedb")
    k: int = 10
    builds: int = 1
    batch_rows: int = 10_000
    batch_queries: int = 100
    selectivity: tuple[float, ...] = ()
    libraries: bool = True
    one_process: bool = False

    def check(self) -> None:
        """Refuses what cannot be measured.

        Raises:
            BenchError: a store or a selectivity that there is not.
        """
        for name in self.stores:
            store_uri(name, Path())
        for percent in self.selectivity:
            threshold(percent)


@dataclass(frozen=True)
class Kind:
    """A contender and where its files are.

    Attributes:
        name, make: see `hold`.
        folder: its files; None where it writes none, and so is not built.
        filters: whether it can search some rows only.
        at_once: whether it can search before it is optimized.
    """

    name: str
    make: Make
    folder: Path | None
    filters: bool = True
    at_once: bool = True


def kinds_of(
    workload: Workload, settings: Settings, folder: Path
) -> tuple[list[Kind], dict[str, str]]:
    """Contenders with files in `folder`, and which library each store is compared with."""
    kinds, pairs = [], {}
    for number, name in enumerate(settings.stores):
        own = folder / str(number)
        uri = store_uri(name, own)
        kinds.append(Kind(name, partial(Store, uri, workload.dim), own))
        beside = folder / f"{number}-library"
        library = f"library of {name}"
        kind = {
            "exact": Kind(library, partial(NumPy, workload.path), None, filters=False),
            "nmslib": Kind(
                library, partial(_nmslib, beside, uri), beside, filters=False, at_once=False
            ),
            "lancedb": Kind(library, partial(LanceTable, beside), beside),
        }.get(name.partition("?")[0])
        if kind is not None and settings.libraries:
            kinds.append(kind)
            pairs[name] = library
    kinds.append(Kind(NULL, Null, None))
    return kinds, pairs


def _nmslib(folder: Path, uri: str) -> NmslibIndex:
    return NmslibIndex(folder, NmslibStore.settings(StoreURI.parse(uri)))
