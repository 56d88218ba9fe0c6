"""The whole of it: every contender is filled, searched, optimized, and searched again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsicd_embed.bench.ann import builds
from rsicd_embed.bench.ann.contender_specs import AnnSettings, ContenderSpec, specs_of
from rsicd_embed.bench.ann.contenders import SCAN, numbers
from rsicd_embed.bench.ann.ground_truth import Truth
from rsicd_embed.bench.ann.measure import NULL, searched
from rsicd_embed.bench.ann.sweep import apart
from rsicd_embed.bench.ann.worker import ConfiguredWorker, ContenderWorker, start_worker
from rsicd_embed.bench.ann.workload import Workload, threshold
from rsicd_embed.bench.workers import Worker
from rsicd_embed.reports.pareto import OPTIMIZED, points
from rsicd_embed.reports.timing import Progress, TimingPlan

UPSERTED = "as upserted"
# Of the sweep, at most.
_SWEEP_ROUNDS, _SWEEP_SAMPLE_S = 7, 0.05


def run(
    workload: Workload,
    settings: AnnSettings,
    plan: TimingPlan,
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
    found = {
        "complete": complete,
        "contenders": whole.contenders,
        "ratios": builds.ratios(whole.contenders, whole.pairs),
        "states": whole.states,
        "sweep": whole.sweep,
    }
    return {**found, "points": points(found | {"settings": settings.as_json()})}


class _Run:
    def __init__(
        self,
        workload: Workload,
        settings: AnnSettings,
        plan: TimingPlan,
        scratch: Path,
        progress: Progress,
    ) -> None:
        self.workload, self.settings, self.plan = workload, settings, plan
        self.scratch, self.progress = scratch, progress
        self.contenders: dict[str, dict[str, Any]] = {}
        self.states: dict[str, dict[str, Any]] = {}
        self.pairs: dict[str, str] = {}
        self.sweep: list[dict[str, Any]] = []
        self.truths: dict[tuple[int, int | None], Truth] = {}

    def measured(self) -> bool:
        """Whether all that was wanted was measured."""
        draw = random.Random(self.plan.seed)
        specs: Sequence[ContenderSpec] = ()
        for number in range(self.settings.builds):
            last = number + 1 == self.settings.builds
            specs, self.pairs = specs_of(self.workload, self.settings, self.scratch / str(number))
            if not self._build(specs, draw, search=last):
                return False
            if not last:
                shutil.rmtree(self.scratch / str(number), ignore_errors=True)
        return self._search(OPTIMIZED, specs)

    def _build(self, specs: Sequence[ContenderSpec], draw: random.Random, *, search: bool) -> bool:
        """Fills and optimizes all that have files, in an order drawn anew."""
        built = [spec for spec in specs if spec.folder is not None]
        with ExitStack() as stack:
            writers = {spec.name: self._start(stack, spec) for spec in built}
            for writer in writers.values():
                writer.call(ContenderWorker.ready)
            for spec in draw.sample(built, len(built)):
                self.progress(f"filling {spec.name}")
                told = writers[spec.name].call(
                    ContenderWorker.fill, self.workload, self.settings.batch_rows
                )
                builds.keep(self.contenders, spec.name, "upsert", self._told(told))
            able = [spec for spec in specs if spec.at_once]
            if search and not self._search(UPSERTED, able):
                return False
            for spec in draw.sample(built, len(built)):
                self.progress(f"optimizing {spec.name}")
                told = writers[spec.name].call(ContenderWorker.optimize)
                builds.keep(self.contenders, spec.name, "optimize", self._told(told))
        for spec in built:
            self.contenders[spec.name]["disk_bytes"] = _bytes(spec.folder)
        return True

    def _told(self, told: dict[str, Any]) -> dict[str, Any]:
        """Without a peak of memory where it is that of all contenders."""
        return told | {"peak_bytes": None} if self.settings.one_process else told

    def _search(self, state: str, specs: Sequence[ContenderSpec]) -> bool:
        """Searches all, in new processes, with the settings that the stores found best."""
        with ExitStack() as stack:
            self.progress(f"opening all, {state}")
            workers = {spec.name: self._start(stack, spec) for spec in specs}
            index = {name: worker.call(ContenderWorker.index) for name, worker in workers.items()}
            pairs = {}
            for one, other in self.pairs.items():
                if other in workers and _comparable(index[one], index[other]):
                    pairs[one] = other
                    workers[other].call(ContenderWorker.configure, numbers(index[one]))
                else:
                    workers.pop(other, None)
            complete = self._state(state, workers, pairs, self.settings.k)
            for name, told in self.states[state]["contenders"].items():
                told["index"] = index[name]
                if complete and not self.settings.one_process:
                    told["peak_bytes"] = workers[name].call(ContenderWorker.peak_bytes)
            if state == OPTIMIZED:
                complete = complete and self._further(specs, workers, pairs)
                indexed = [one for one in specs if index[one.name] != SCAN]
                complete = complete and self._sweep(indexed, workers)
        return complete

    def _further(
        self,
        specs: Sequence[ContenderSpec],
        workers: Mapping[str, Worker[ContenderWorker]],
        pairs: Mapping[str, str],
    ) -> bool:
        """The other k, and filters."""
        complete = True
        for k in self.settings.ks[1:]:
            complete = complete and self._state(OPTIMIZED, workers, pairs, k)
        able = {spec.name for spec in specs if spec.filters}
        workers = {name: worker for name, worker in workers.items() if name in able}
        pairs = {one: other for one, other in pairs.items() if other in workers}
        for percent in self.settings.selectivity:
            for k in self.settings.ks:
                state, below = f"{percent:g}% of the rows", threshold(percent)
                complete = complete and self._state(state, workers, pairs, k, below)
        return complete

    def _state(
        self,
        state: str,
        workers: Mapping[str, Worker[ContenderWorker]],
        pairs: Mapping[str, str],
        k: int,
        below: int | None = None,
    ) -> bool:
        name = state if k == self.settings.k else f"{state}, k={k}"
        clients = dict.fromkeys(self.settings.stores, self.settings.clients)
        how: dict[str, Any] = {"clients": clients, "progress": self._teller(name)}
        if state == OPTIMIZED:
            how["batch"] = self.settings.batch_queries
        right = self._truth(k, below)
        told = searched(workers, pairs, right, self.plan, **how)
        self.states[name] = told | {"where": right.where, "k": k}
        return bool(told["complete"])

    def _sweep(
        self, specs: Sequence[ContenderSpec], workers: Mapping[str, Worker[ContenderWorker]]
    ) -> bool:
        """Every index with each of its settings, all in the same rounds."""
        steps = {spec.name: spec.steps for spec in specs if spec.name in workers and spec.steps}
        if not steps:
            return True
        least_s = min(self.plan.least_s, _SWEEP_SAMPLE_S)
        plan = replace(self.plan, rounds=min(self.plan.rounds, _SWEEP_ROUNDS), least_s=least_s)
        for k in self.settings.ks:
            tried: dict[str, Worker[ContenderWorker]] = {NULL: workers[NULL]}
            for name, some in steps.items():
                for at, one in enumerate(some):
                    tried[f"{name}, {at}"] = ConfiguredWorker(workers[name], one, k)
            told = searched(
                tried,
                {},
                self._truth(k),
                plan,
                batch=self.settings.batch_queries,
                batched=[one for one in tried if one.rpartition(",")[0] in self.settings.stores],
                progress=self._teller(f"all settings, k={k}"),
            )
            self.sweep += apart(told, steps, k)
            if not told["complete"]:
                return False
        return True

    def _truth(self, k: int, below: int | None = None) -> Truth:
        """What is right, computed once."""
        if (k, below) not in self.truths:
            self.truths[k, below] = Truth(self.workload, k, below)
        return self.truths[k, below]

    def _teller(self, name: str) -> Progress:
        return lambda doing: self.progress(f"{name}: {doing}")

    def _start(self, stack: ExitStack, spec: ContenderSpec) -> Worker[ContenderWorker]:
        here = self.settings.one_process
        worker = start_worker(spec.name, spec.make, self.workload, here=here)
        stack.callback(worker.close)
        if here:  # elsewhere files and memory go with the process
            stack.callback(worker.call, ContenderWorker.end)
        return worker


def _comparable(store: str, library: str) -> bool:
    """Whether both search an index, or neither does."""
    return (store == SCAN) == (library == SCAN)


def _bytes(folder: Path | None) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) if folder else 0
