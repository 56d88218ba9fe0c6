"""Types of the JSON records of evaluations."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from rsicd_embed.reports.record_types import RunRecord


class BootstrapSettings(TypedDict):
    """Settings of the bootstrap."""

    resamples: int
    seed: int
    level: float
    interval: str
    unit: str


# A row for each class; besides these fields, its `topK` accuracies.
ClassScores = TypedDict(
    "ClassScores",
    {
        "class": str,
        "n": int,
        "top1": NotRequired[float | None],
        "most_mistaken_for": str | None,
        "mistaken": int,
    },
)

Metrics = dict[str, float]
Intervals = dict[str, tuple[float, float]]


class SkippedImage(TypedDict):
    """An image that was left out."""

    uri: str
    reason: str


class ZeroShotScores(TypedDict):
    """Zero-shot scores of one model on one dataset, metrics as fractions.

    `confusion[i][j]` images of class i were predicted as class j, in the order of `per_class`.
    """

    n: int
    classes: int
    metrics: Metrics
    intervals: Intervals
    bootstrap: BootstrapSettings
    ties: str
    per_class: list[ClassScores]
    confusion: list[list[int]]
    notes: list[str]


class RetrievalScores(TypedDict):
    """Retrieval scores of one model on one dataset, metrics as fractions."""

    n: int
    captions: int
    distinct_captions: int
    shared_captions: int
    metrics: Metrics
    intervals: Intervals
    bootstrap: BootstrapSettings
    ceiling: Metrics
    ties: str
    argsort: Metrics
    argsort_ties: str
    duplicates: str


class CaptionBaseline(TypedDict):
    """Scores of captions that need no captioner, and how much higher those of the captioner are."""

    metrics: Metrics
    margin: Metrics
    margin_intervals: Intervals


class CaptionEvaluation(TypedDict):
    """Scores of generated captions on one dataset, as fractions; CIDEr-D is at most 10.

    `references` is the number of captions of the images, and `distinct` that of different captions
    generated.
    """

    n: int
    references: int
    metrics: Metrics
    intervals: Intervals
    bootstrap: BootstrapSettings
    distinct: int
    baselines: dict[str, CaptionBaseline]


class CaptionSample(TypedDict):
    """A generated caption and the first reference caption of its image."""

    uri: str
    caption: str
    reference: str
    log_probability: float


class QueryPrecision(TypedDict):
    """Precision of the best results of one query, and the number of images that answer it."""

    query: str
    classes: list[str]
    relevant: int
    precision: float


class QueryScores(TypedDict):
    """Scores of a list of queries on one set of images; metrics are means over the queries."""

    n: int
    queries: int
    k: int
    metrics: Metrics
    intervals: Intervals
    bootstrap: BootstrapSettings
    without_hits: int
    per_query: list[QueryPrecision]
    notes: list[str]


class FittedProbe(TypedDict):
    """A probe: the chosen setting, `c` or `k`, and the accuracy of each candidate."""

    c: NotRequired[float]
    k: NotRequired[float]
    tried: list[dict[str, float]]
    converged: bool


class ProbeScores(TypedDict):
    """Probe scores of one model on one dataset, metrics as fractions."""

    split: str
    train_split: str
    chosen_on: str
    n: int
    n_train: int
    n_chosen_on: int
    classes: int
    metrics: Metrics
    intervals: Intervals
    bootstrap: BootstrapSettings
    largest_class: float
    linear: FittedProbe
    knn: FittedProbe
    notes: list[str]


class MetricChange(TypedDict):
    """One metric of two models, their difference, and its interval."""

    baseline: float
    model: float
    difference: float
    interval: tuple[float, float]


class DatasetChanges(TypedDict):
    """Gains and losses of a model on one dataset."""

    dataset: str
    split: str
    n: int
    metrics: dict[str, MetricChange]


class SuiteModel(TypedDict):
    """A model of a suite, and the engine that it ran on."""

    model: str
    fingerprint: str
    engine: str | None


class SuiteResult(TypedDict):
    """One model on one dataset, metrics as fractions.

    `seen` is whether images of the dataset were in the training data; None if unknown.
    """

    model: str
    dataset: str
    split: str
    n: int
    seen: bool | None
    metrics: Metrics
    intervals: Intervals


class EvaluationRecord(RunRecord, total=False):
    """A record of `eval`; which fields it has depends on the task."""

    complete: bool
    model: str
    fingerprint: str
    predictions: str
    dataset: str
    split: str
    n: int
    metrics: Metrics
    intervals: Intervals
    bootstrap: BootstrapSettings
    seconds: dict[str, float]
    notes: list[str]
    skipped: list[SkippedImage]
    ties: str
    # zeroshot
    classes: int
    names: list[str]
    labelled: str
    left_out: int
    per_class: list[ClassScores]
    confusion: list[list[int]]
    # retrieval
    captions: int
    distinct_captions: int
    shared_captions: int
    without_captions: int
    ceiling: Metrics
    argsort: Metrics
    argsort_ties: str
    duplicates: str
    # caption
    captioner: str
    decoding: str
    references: int
    distinct: int
    baselines: dict[str, CaptionBaseline]
    samples: list[CaptionSample]
    # probe
    train_split: str
    chosen_on: str
    n_train: int
    n_chosen_on: int
    largest_class: float
    linear: FittedProbe
    knn: FittedProbe
    # queries
    queries: int
    k: int
    without_hits: int
    per_query: list[QueryPrecision]
    # forgetting
    baseline: str
    baseline_fingerprint: str
    datasets: list[DatasetChanges]
    # suite
    models: list[SuiteModel]
    results: list[SuiteResult]
