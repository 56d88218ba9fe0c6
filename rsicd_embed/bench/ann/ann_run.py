"""A run of `bench ann`: every contender is filled, searched, optimized, and searched again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from rsicd_embed.bench.ann.contender_specs import AnnSettings, ContenderSpec, specs_of
from rsicd_embed.bench.ann.contenders import NULL, SCAN, index_settings
from rsicd_embed.bench.ann.ground_truth import GroundTruth
from rsicd_embed.bench.ann.measure import search_all, sweep_steps
from rsicd_embed.bench.ann.worker import (
    BuildTimes,
    ConfiguredWorker,
    ContenderWorker,
    start_worker,
)
from rsicd_embed.bench.ann.workload import Workload, threshold
from rsicd_embed.bench.workers import Worker
from rsicd_embed.reports.record_metrics import OPTIMIZED, ann_points
from rsicd_embed.reports.record_types import (
    BUILD_STEPS,
    AnnResults,
    BuildName,
    BuiltContender,
    Ratio,
    SearchState,
    SweepStep,
)
from rsicd_embed.reports.timing import (
    Progress,
    TimingPlan,
    paired_ratio,
    ratio_summary,
    significant,
    spread,
)

UPSERTED = "as upserted"
# Most rounds, and longest samples, of the sweep.
_SWEEP_ROUNDS, _SWEEP_SAMPLE_S = 7, 0.05


def run(
    workload: Workload,
    settings: AnnSettings,
    plan: TimingPlan,
    scratch: Path,
    progress: Progress = lambda doing: None,
) -> AnnResults:
    """Builds and searches all contenders.

    A KeyboardInterrupt after the first contender was built ends the run early; the results returned
    are then marked as incomplete.

    Raises:
        BenchError: a store is unknown, or a contender failed.
    """
    settings.check()
    ann_run = _Run(workload, settings, plan, scratch, progress)
    complete = False
    try:
        complete = ann_run.run()
    except KeyboardInterrupt:
        if not ann_run.contenders:
            raise
    _summarise(ann_run.contenders, workload.rows, settings.batch_rows)
    results: AnnResults = {
        "complete": complete,
        "contenders": ann_run.contenders,
        "ratios": _build_ratios(ann_run.contenders, ann_run.pairs),
        "states": ann_run.states,
        "sweep": ann_run.sweep,
        "points": [],
    }
    results["points"] = ann_points(results, settings.k)
    return results


@dataclass
class _Run:
    """The state of a run. Its methods return False if they were interrupted."""

    workload: Workload
    settings: AnnSettings
    plan: TimingPlan
    scratch: Path
    progress: Progress
    contenders: dict[str, BuiltContender] = field(default_factory=dict)
    states: dict[str, SearchState] = field(default_factory=dict)
    pairs: dict[str, str] = field(default_factory=dict)
    sweep: list[SweepStep] = field(default_factory=list)
    truths: dict[tuple[int, int | None], GroundTruth] = field(default_factory=dict)

    def run(self) -> bool:
        draw = random.Random(self.plan.seed)
        specs: Sequence[ContenderSpec] = ()
        for number in range(self.settings.builds):
            is_last = number + 1 == self.settings.builds
            specs, self.pairs = specs_of(self.workload, self.settings, self.scratch / str(number))
            if not self._build(specs, draw, search=is_last):
                return False
            if not is_last:
                shutil.rmtree(self.scratch / str(number), ignore_errors=True)
        return self._search(OPTIMIZED, specs)

    def _build(self, specs: Sequence[ContenderSpec], draw: random.Random, *, search: bool) -> bool:
        """Fills and optimizes the contenders that have files, in a new random order."""
        built = [spec for spec in specs if spec.folder is not None]
        with ExitStack() as stack:
            writers = {spec.name: self._start(stack, spec) for spec in built}
            for writer in writers.values():
                writer.call(ContenderWorker.ready)
            for spec in draw.sample(built, len(built)):
                self.progress(f"filling {spec.name}")
                times = writers[spec.name].call(
                    ContenderWorker.fill, self.workload, self.settings.batch_rows
                )
                self._add_build(spec.name, "upsert", times)
            searchable = [spec for spec in specs if spec.searches_unoptimized]
            search = search and not self.settings.optimized_only
            if search and not self._search(UPSERTED, searchable):
                return False
            for spec in draw.sample(built, len(built)):
                self.progress(f"optimizing {spec.name}")
                times = writers[spec.name].call(ContenderWorker.optimize)
                self._add_build(spec.name, "optimize", times)
        for spec in built:
            self.contenders[spec.name]["disk_bytes"] = _disk_bytes(spec.folder)
        return True

    def _add_build(self, name: str, step: BuildName, times: BuildTimes) -> None:
        """Adds one build; without peak memory where all contenders share this process."""
        built = self.contenders.setdefault(name, {})
        if step not in built:
            built[step] = {"samples_ns": [], "peak_bytes": []}
        samples = built[step]
        samples["samples_ns"].append(times.ns)
        samples["peak_bytes"].append(None if self.settings.one_process else times.peak_bytes)
        if times.batch_ns:
            samples.setdefault("batch_ns", []).append(times.batch_ns)

    def _search(self, state: str, specs: Sequence[ContenderSpec]) -> bool:
        """Searches all contenders in new processes, libraries with their store's settings."""
        with ExitStack() as stack:
            self.progress(f"opening all, {state}")
            workers = {spec.name: self._start(stack, spec) for spec in specs}
            index = {name: worker.call(ContenderWorker.index) for name, worker in workers.items()}
            pairs = {}
            for store, library in self.pairs.items():
                # Comparable only if both have an index, or neither does.
                if library in workers and (index[store] == SCAN) == (index[library] == SCAN):
                    pairs[store] = library
                    settings = index_settings(index[store])
                    workers[library].call(ContenderWorker.configure, settings)
                else:
                    workers.pop(library, None)
            complete = self._state(state, workers, pairs, self.settings.k)
            for name, contender in self.states[state]["contenders"].items():
                contender["index"] = index[name]
                if complete and not self.settings.one_process:
                    contender["peak_bytes"] = workers[name].call(ContenderWorker.peak_bytes)
            if state == OPTIMIZED:
                complete = complete and self._further_states(specs, workers, pairs)
                indexed = [spec for spec in specs if index[spec.name] != SCAN]
                complete = complete and self._sweep(indexed, workers)
        return complete

    def _further_states(
        self,
        specs: Sequence[ContenderSpec],
        workers: Mapping[str, Worker[ContenderWorker]],
        pairs: Mapping[str, str],
    ) -> bool:
        """Searches with the other k, and with filters."""
        complete = True
        for k in self.settings.ks[1:]:
            complete = complete and self._state(OPTIMIZED, workers, pairs, k)
        filtering = {spec.name for spec in specs if spec.filters}
        workers = {name: worker for name, worker in workers.items() if name in filtering}
        pairs = {store: library for store, library in pairs.items() if library in workers}
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
        truth = self._truth(k, below)
        results = search_all(
            workers,
            pairs,
            truth,
            self.plan,
            batch=self.settings.batch_queries if state == OPTIMIZED else 0,
            clients=dict.fromkeys(self.settings.stores, self.settings.clients),
            progress=self._progress_of(name),
        )
        results["where"], results["k"] = truth.where, k
        self.states[name] = results
        return results["complete"]

    def _sweep(
        self, specs: Sequence[ContenderSpec], workers: Mapping[str, Worker[ContenderWorker]]
    ) -> bool:
        """Searches every index with each of its settings, all in the same rounds."""
        steps = {spec.name: spec.steps for spec in specs if spec.name in workers and spec.steps}
        if not steps:
            return True
        least_s = min(self.plan.least_s, _SWEEP_SAMPLE_S)
        plan = replace(self.plan, rounds=min(self.plan.rounds, _SWEEP_ROUNDS), least_s=least_s)
        for k in self.settings.ks:
            configured: dict[str, Worker[ContenderWorker]] = {NULL: workers[NULL]}
            for name, own in steps.items():
                for at, settings in enumerate(own):
                    worker = ConfiguredWorker(workers[name], settings, k)
                    configured[f"{name}, {at}"] = worker
            stores = [n for n in configured if n.rpartition(",")[0] in self.settings.stores]
            state = search_all(
                configured,
                {},
                self._truth(k),
                plan,
                batch=self.settings.batch_queries,
                batched=stores,
                progress=self._progress_of(f"all settings, k={k}"),
            )
            self.sweep += sweep_steps(state, steps, k)
            if not state["complete"]:
                return False
        return True

    def _truth(self, k: int, below: int | None = None) -> GroundTruth:
        """The correct results, computed once."""
        return self.truths.setdefault((k, below), GroundTruth(self.workload, k, below))

    def _progress_of(self, name: str) -> Progress:
        return lambda doing: self.progress(f"{name}: {doing}")

    def _start(self, stack: ExitStack, spec: ContenderSpec) -> Worker[ContenderWorker]:
        inline = self.settings.one_process
        worker = start_worker(spec.name, spec.make, self.workload, inline=inline)
        stack.callback(worker.close)
        if inline:  # otherwise files and memory go with the process
            stack.callback(worker.call, ContenderWorker.end)
        return worker


def _disk_bytes(folder: Path | None) -> int:
    files = folder.rglob("*") if folder else ()
    return sum(path.stat().st_size for path in files if path.is_file())


def _summarise(contenders: Mapping[str, BuiltContender], rows: int, batch_rows: int) -> None:
    """Adds seconds and rates: medians over the builds."""
    for built in contenders.values():
        for name in BUILD_STEPS:
            step = built.get(name)
            if step and step["samples_ns"]:
                step["s"] = significant(spread(step["samples_ns"]).median / 1e9)
        upsert = built["upsert"]
        upsert["rows_per_s"] = significant(rows / upsert["s"])
        # A typical batch, unlike those in which a store updated its index.
        batch_ns = spread([ns for batches in upsert["batch_ns"] for ns in batches]).median
        per_s = min(batch_rows, rows) * 1e9 / batch_ns
        upsert["rows_per_s_of_median_batch"] = significant(per_s)


def _build_ratios(
    contenders: Mapping[str, BuiltContender], pairs: Mapping[str, str]
) -> list[Ratio]:
    """Build time of each store relative to its library, build by build, for each step and both."""
    ratios: list[Ratio] = []
    for store, library in pairs.items():
        ours, theirs = contenders.get(store, {}), contenders.get(library, {})
        if "optimize" not in ours or "optimize" not in theirs:
            continue
        times: dict[str, list[list[int]]] = {
            name: [built[name]["samples_ns"] for built in (ours, theirs)] for name in BUILD_STEPS
        }
        times["both"] = [
            [upsert + optimize for upsert, optimize in zip(*steps, strict=False)]
            for steps in zip(*times.values(), strict=True)
        ]
        for name, (own, other) in times.items():
            n = min(len(own), len(other))  # the last build may have been interrupted
            summary = ratio_summary(paired_ratio(own[:n], other[:n]))
            ratios.append(
                {
                    "of": store,
                    "to": library,
                    "what": name,
                    "n": n,
                    "ratio": summary["ratio"],
                    "interval": summary["interval"],
                }
            )
    return ratios
