"""Which contenders there are: the stores, the library under each, and nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from rsicd_embed.bench.ann.contenders import Null, Store, store_uri
from rsicd_embed.bench.ann.libraries import LanceTable, NmslibIndex, NumPy
from rsicd_embed.bench.ann.measure import NULL
from rsicd_embed.bench.ann.reference_libraries import CONTENDERS
from rsicd_embed.bench.ann.sweep import KNOBS
from rsicd_embed.bench.ann.sweep import steps as steps_of
from rsicd_embed.bench.ann.worker import Make
from rsicd_embed.bench.ann.workload import Workload, threshold
from rsicd_embed.stores.base import StoreURI
from rsicd_embed.stores.nmslib import NmslibStore


@dataclass(frozen=True)
class AnnSettings:
    """What is measured.

    Attributes:
        stores: schemes, with options if need be: `nmslib?M=32`.
        ks: rows for each query; all that is measured for one k only is so for the first.
        builds: how often all are built, each time anew.
        batch_rows: rows of an upsert.
        batch_queries: most queries at once.
        clients: how many ask for so many at the same time, each number in turn; 1 is the first.
        selectivity: percents of the rows that filters leave, each measured too.
        libraries: whether each store's library is called directly, too.
        references: other libraries to compare with, by their names in `references.CONTENDERS`.
        sweep: what is tried of each setting that an index is searched with; nothing for no sweep.
        one_process: not each contender in a process of its own; no memory is told then.
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
    sweep: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    one_process: bool = False

    @property
    def k(self) -> int:
        """The first of `ks`."""
        return self.ks[0]

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {"k": self.k, **asdict(self)}

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
class ContenderSpec:
    """A contender and where its files are.

    Attributes:
        name, make: see `start_worker`.
        folder: its files; None where it writes none, and so is not built.
        filters: whether it can search some rows only.
        at_once: whether it can search before it is optimized.
        steps: settings to search its index with.
    """

    name: str
    make: Make
    folder: Path | None
    filters: bool = True
    at_once: bool = True
    steps: Sequence[Mapping[str, int]] = ()


def specs_of(
    workload: Workload, settings: AnnSettings, folder: Path
) -> tuple[list[ContenderSpec], dict[str, str]]:
    """Contenders with files in `folder`, and which library each store is compared with."""
    specs, pairs = [], {}
    for number, name in enumerate(settings.stores):
        own = folder / str(number)
        uri = store_uri(name, own)
        steps = _steps(uri, settings)
        specs.append(ContenderSpec(name, partial(Store, uri, workload.dim), own, steps=steps))
        beside = folder / f"{number}-library"
        library = f"library of {name}"
        spec = {
            "exact": ContenderSpec(library, partial(NumPy, workload.path), None, filters=False),
            "nmslib": ContenderSpec(
                library, partial(_nmslib, beside, uri), beside, filters=False, at_once=False
            ),
            "lancedb": ContenderSpec(library, partial(LanceTable, beside), beside),
        }.get(name.partition("?")[0])
        if spec is not None and settings.libraries:
            specs.append(replace(spec, steps=steps))
            pairs[name] = library
    for name in settings.references:
        for number, (own_name, contender) in enumerate(CONTENDERS[name].items()):
            own = folder / f"{name}-{number}"
            made = partial(contender, own, workload.dim)
            steps = steps_of(contender.knobs, settings.sweep) if settings.sweep else []
            specs.append(
                ContenderSpec(own_name, made, own, filters=False, at_once=False, steps=steps)
            )
    specs.append(ContenderSpec(NULL, Null, None))
    return specs, pairs


def _steps(uri: str, settings: AnnSettings) -> list[dict[str, int]]:
    """What to try of a store; nothing where its URI says it."""
    parsed = StoreURI.parse(uri)
    knobs = KNOBS.get(parsed.scheme, ())
    if not settings.sweep or {name for name, _ in parsed.options} & set(knobs):
        return []
    return steps_of(knobs, settings.sweep)


def _nmslib(folder: Path, uri: str) -> NmslibIndex:
    return NmslibIndex(folder, NmslibStore.settings(StoreURI.parse(uri)))
