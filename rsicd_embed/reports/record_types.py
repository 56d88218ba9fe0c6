"""Types of the JSON records of benchmarks and evaluations.

A field marked `NotRequired` is absent from records of earlier versions or of interrupted runs.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

Percentile = Literal["p50_ns", "p95_ns", "p99_ns"]
PERCENTILES: tuple[Percentile, ...] = ("p50_ns", "p95_ns", "p99_ns")
BuildName = Literal["upsert", "optimize"]
BUILD_STEPS: tuple[BuildName, ...] = ("upsert", "optimize")
Modality = Literal["images", "texts"]
MODALITIES: tuple[Modality, ...] = ("images", "texts")


class GitState(TypedDict):
    """Commit of a checkout, and whether tracked files differ from it."""

    commit: str
    dirty: bool


class MachineInfo(TypedDict):
    """Hardware, package versions and load of the machine of a run; see `machine.describe`."""

    cpu: str
    isa: list[str]
    cores: int
    memory_bytes: int | None
    load_1min: float | None
    accelerators: list[str]
    os: str
    python: str
    packages: dict[str, str]
    environment: dict[str, str]
    git: GitState | None
    others_share: NotRequired[float | None]


class RunSettings(TypedDict, total=False):
    """Settings that pages and comparisons read; each task records those it has, and others."""

    model: str
    k: int
    stores: list[str]
    rows: int
    prompts: list[str]
    raw_names: bool


class RunRecord(TypedDict):
    """The fields that every record starts with; see `record.document`."""

    format: int
    task: str
    command: str
    started: str
    machine: MachineInfo
    settings: RunSettings


class RatioSummary(TypedDict):
    """Median of the ratios of all rounds, and its 95% interval."""

    ratio: float
    interval: list[float]


class Ratio(RatioSummary):
    """Ratio of one candidate to another; `what` is the quantity, `n` the number of samples."""

    of: str
    to: str
    what: NotRequired[str]
    n: NotRequired[int]
    best_of_best: NotRequired[float]


class Agreement(TypedDict):
    """How closely the vectors of two candidates agree; see `embed_rates.agreement`."""

    least_cosine: float
    largest_difference: float
    between_inputs: float


class RateSummary(TypedDict):
    """Rate of one candidate, with raw samples; see `timing.rate_summary`."""

    unit: str
    units_per_call: float
    calls_per_sample: int
    samples_ns: list[float]
    ns: dict[str, float]
    per_s: float
    per_s_interval: list[float]
    per_s_best: float
    agreement_with_first: NotRequired[Agreement]
    of_float32_peak: NotRequired[Ratio]


class Overhead(TypedDict):
    """Cost of timing itself, and as a fraction of the shortest timed call."""

    null_ns: float
    fraction: float
    goal: NotRequired[float]


class RatesRecord(RunRecord):
    """A record of candidates and their rates, as scripts write."""

    complete: NotRequired[bool]
    candidates: dict[str, RateSummary]
    ratios: NotRequired[list[Ratio]]


# bench embed


class EmbedRates(TypedDict):
    """Rates of images or of texts."""

    candidates: dict[str, RateSummary]
    ratios: list[Ratio]
    overhead: Overhead


class FloatPeak(TypedDict):
    """The fastest float32 matrix product, and all that were timed."""

    best: str
    gflop_per_s: float
    candidates: dict[str, RateSummary]


class EmbedResults(TypedDict):
    """Fields of a record that `embed_rates.run` measures."""

    complete: bool
    images: NotRequired[EmbedRates]
    texts: NotRequired[EmbedRates]
    peak: NotRequired[FloatPeak | None]
    flop_per_image: NotRequired[int]
    tower: NotRequired[dict[str, object]]
    runs: NotRequired[dict[str, EmbedResults]]


class EmbedRecord(RunRecord, EmbedResults):
    """A record of `bench embed`."""

    left_out: dict[str, str]


# bench ingest


class IngestShares(TypedDict):
    """Rate of an ingest relative to its two halves, and its stages."""

    of_model_alone: RatioSummary
    of_slower_alone: RatioSummary
    of_sum: RatioSummary
    stages_s: dict[str, float]
    limited_by: str


class IngestMemory(TypedDict):
    """Resident memory of a process that ingests; see `ingest_rates.ingest_memory`."""

    images: int
    store: str
    seconds: float
    loaded_bytes: int
    ingest_peak_bytes: int
    peak_bytes: int


class IngestResults(TypedDict):
    """Fields of a record that `ingest_rates.run` measures."""

    complete: bool
    images: int
    file_bytes: int
    candidates: dict[str, RateSummary]
    ingests: dict[str, IngestShares]


class IngestRecord(RunRecord, IngestResults):
    """A record of `bench ingest`."""

    memory: list[IngestMemory]
    model: dict[str, str | int]
    candidate: str


# bench serve


class LatencyMs(TypedDict):
    """Latency percentiles in milliseconds over `n` requests."""

    n: int
    p50: float
    p90: float
    p99: float


class ServeResults(TypedDict):
    """Fields of a record that `serve_rates.run` measures, each by server."""

    complete: bool
    start_s: dict[str, float]
    latency_ms: dict[str, LatencyMs]
    cpu_ms_per_search: dict[str, float]
    candidates: dict[str, RateSummary]
    ratios: list[Ratio]


class ServeRecord(RunRecord, ServeResults):
    """A record of `bench serve`."""


# bench ann


class QueryLatency(TypedDict):
    """Latency percentiles over all single queries, and of each round."""

    n: int
    p50_ns: float
    p95_ns: float
    p99_ns: float
    mean_ns: float
    by_round: dict[Percentile, list[float]]


class SearchAccuracy(TypedDict):
    """Mean ANN recall@k over the answered queries, with its interval."""

    ann_recall: float
    ann_recall_interval: list[float]
    ann_recall_by_kind: dict[str, float]
    least_of_a_query: float
    queries: int


class BatchRate(RateSummary, SearchAccuracy):
    """Rate and ANN recall@k of batched queries from one client."""


class SearchedContender(SearchAccuracy):
    """Results of one contender in one state."""

    first_search_ns: NotRequired[int]
    single: NotRequired[QueryLatency]
    batch: NotRequired[BatchRate]
    batch_by_clients: NotRequired[dict[str, RateSummary]]
    index: NotRequired[str]
    peak_bytes: NotRequired[int]


class SearchState(TypedDict):
    """Results of all contenders in one state, such as `optimized`."""

    complete: bool
    contenders: dict[str, SearchedContender]
    ratios: list[Ratio]
    overhead: Overhead
    where: NotRequired[str | None]
    k: NotRequired[int]


class SweepStep(TypedDict):
    """Results of contenders, each with one combination of search settings."""

    k: int
    settings: dict[str, dict[str, int]]
    complete: bool
    contenders: dict[str, SearchedContender]
    overhead: Overhead


class BuildStep(TypedDict):
    """Samples of `upsert` or `optimize`, one per build, and their summary."""

    samples_ns: list[int]
    peak_bytes: list[int | None]
    batch_ns: NotRequired[list[list[int]]]
    s: NotRequired[float]
    rows_per_s: NotRequired[float]
    rows_per_s_of_median_batch: NotRequired[float]


class BuiltContender(TypedDict, total=False):
    """How a contender was built."""

    upsert: BuildStep
    optimize: BuildStep
    disk_bytes: int


class AnnPoint(TypedDict):
    """One contender with one combination of settings; see `record_metrics.ann_points`."""

    contender: str
    k: int
    settings: dict[str, int]
    index: str | None
    ann_recall: float
    ann_recall_interval: list[float] | None
    p50_ns: float
    p95_ns: float
    p99_ns: float
    qps: dict[str, float]
    build_s: float | None
    disk_bytes: int | None
    peak_bytes: int | None
    pareto: bool


class AnnResults(TypedDict):
    """Fields of a record that `ann_run.run` measures."""

    complete: bool
    contenders: dict[str, BuiltContender]
    ratios: list[Ratio]
    states: dict[str, SearchState]
    sweep: list[SweepStep]
    points: list[AnnPoint]


class VectorsInfo(TypedDict):
    """The vectors that were searched."""

    source: str
    rows: int
    dim: int


class QueriesInfo(TypedDict):
    """The queries, by kind; and the accuracy of the source's own ground truth, if it has one."""

    count: int
    kinds: dict[str, int]
    ann_recall_of_their_neighbours: NotRequired[float]


class AnnRecord(RunRecord, AnnResults):
    """A record of `bench ann`; earlier ones have no `sweep` and no `points`."""

    vectors: VectorsInfo
    queries: QueriesInfo
    left_out: NotRequired[dict[str, str]]
