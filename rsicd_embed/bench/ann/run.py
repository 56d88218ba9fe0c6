"""The whole of it: every contender is filled, searched, optimized, and searched again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rsicd_embed.bench.ann import builds
from rsicd_embed.bench.ann.contenders import SCAN
from rsicd_embed.bench.ann.held import Held, hold
from rsicd_embed.bench.ann.kinds import Kind, Settings, kinds_of
from rsicd_embed.bench.ann.measure import Truth, searched
from rsicd_embed.bench.ann.workload import Workload, threshold
from rsicd_embed.bench.isolate import Place
from rsicd_embed.bench.timing import Plan, Progress

UPSERTED, OPTIMIZED = "as upserted", "optimized"


def run(
    workload: Workload,
    settings: Settings,
    plan: Plan,
    scratch: Path,
    progress: Progress = lambda doing: None,
) -> dict[str, Any]:
    """Builds and searches all contenders; the fields of a record.

    An interruption by the user (KeyboardInterrupt) after something was built ends it: what there
    is comes back, as not complete.

    Raises:
        BenchError: no such store, or a contender failed.
    """
    settings.check()
    whole = _Run(workload, settings, plan, scratch, progress)
    complete = False
    try:
        complete = whole.measured()
    except KeyboardInterrupt:
        if not whole.contenders:
            raise
    builds.summarise(whole.contenders, workload.rows, settings.batch_rows)
    return {
        "complete": complete,
        "contenders": whole.contenders,
        "ratios": builds.ratios(whole.contenders, whole.pairs),
        "states": whole.states,
    }


class _Run:
    def __init__(
        self,
        workload: Workload,
        settings: Settings,
        plan: Plan,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self.workload, self.settings, self.plan = workload, settings, plan
        self.scratch, self.progress = scratch, progress
        self.contenders: dict[str, dict[str, Any]] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.pairs: dict[str, str] = {}

    def measured(self) -> bool:
        """Whether all that was wanted was measured."""
        draw = random.Random(self.plan.seed)
        kinds: Sequence[Kind] = ()
        for number in range(self.settings.builds):
            last = number + 1 == self.settings.builds
            kinds, self.pairs = kinds_of(self.workload, self.settings, self.scratch / str(number))
            if not self._build(kinds, draw, search=last):
                return False
            if not last:
                shutil.rmtree(self.scratch / str(number), ignore_errors=True)
        return self._search(OPTIMIZED, kinds)

    def _build(self, kinds: Sequence[Kind], draw: random.Random, *, search: bool) -> bool:
        """Fills and optimizes all that have files, in an order drawn anew."""
        built = [kind for kind in kinds if kind.folder is not None]
        with ExitStack() as stack:
            writers = {kind.name: self._hold(stack, kind) for kind in built}
            for kind in draw.sample(built, len(built)):
                self.progress(f"filling {kind.name}")
                told = writers[kind.name].ask(Held.fill, self.workload, self.settings.batch_rows)
                builds.keep(self.contenders, kind.name, "upsert", self._told(told))
            able = [kind for kind in kinds if kind.at_once]
            if search and not self._search(UPSERTED, able):
                return False
            for kind in draw.sample(built, len(built)):
                self.progress(f"optimizing {kind.name}")
                told = writers[kind.name].ask(Held.optimize)
                builds.keep(self.contenders, kind.name, "optimize", self._told(told))
        for kind in built:
            self.contenders[kind.name]["disk_bytes"] = _bytes(kind.folder)
        return True

    def _told(self, told: dict[str, Any]) -> dict[str, Any]:
        """Without a peak of memory where it is that of all contenders."""
        return told | {"peak_bytes": None} if self.settings.one_process else told

    def _search(self, state: str, kinds: Sequence[Kind]) -> bool:
        """Searches all, in new processes, with the settings that the stores found best."""
        with ExitStack() as stack:
            self.progress(f"opening all, {state}")
            places = {kind.name: self._hold(stack, kind) for kind in kinds}
            index = {name: place.ask(Held.index) for name, place in places.items()}
            pairs = {}
            for one, other in self.pairs.items():
                if other in places and _comparable(index[one], index[other]):
                    pairs[one] = other
                    places[other].ask(Held.configure, index[one])
                else:
                    places.pop(other, None)
            batch = self.settings.batch_queries if state == OPTIMIZED else 0
            right = Truth(self.workload, self.settings.k)
            complete = self._state(state, places, pairs, right, batch)
            for name, told in self.states[state]["contenders"].items():
                told["index"] = index[name]
                if complete and not self.settings.one_process:
                    told["peak_bytes"] = places[name].ask(Held.peak_bytes)
            able = {kind.name for kind in kinds if kind.filters}
            places = {name: place for name, place in places.items() if name in able}
            pairs = {one: other for one, other in pairs.items() if other in places}
            for percent in self.settings.selectivity if state == OPTIMIZED else ():
                right = Truth(self.workload, self.settings.k, threshold(percent))
                name = f"{percent:g}% of the rows"
                complete = complete and self._state(name, places, pairs, right, batch=0)
        return complete

    def _state(
        self,
        state: str,
        places: Mapping[str, Place[Held]],
        pairs: Mapping[str, str],
        right: Truth,
        batch: int,
    ) -> bool:
        tell = partial(self._tell, state)
        told = searched(places, pairs, right, self.plan, batch=batch, progress=tell)
        self.states[state] = told | {"where": right.where}
        return bool(told["complete"])

    def _tell(self, state: str, doing: str) -> None:
        self.progress(f"{state}: {doing}")

    def _hold(self, stack: ExitStack, kind: Kind) -> Place[Held]:
        here = self.settings.one_process
        place = hold(kind.name, kind.make, self.workload, self.settings.k, here=here)
        stack.callback(place.close)
        if here:  # elsewhere files and memory go with the process
            stack.callback(place.ask, Held.end)
        return place


def _comparable(store: str, library: str) -> bool:
    """Whether both search an index, or neither does."""
    return (store == SCAN) == (library == SCAN)


def _bytes(folder: Path | None) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) if folder else 0
