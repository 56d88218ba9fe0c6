"""Several models on several datasets: zero-shot accuracy, retrieval and probes in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import BenchError, DatasetError
from rsicd_embed.evaluation import forgetting, probe_protocol, retrieval, zeroshot
from rsicd_embed.evaluation.dataset import EvalSet
from rsicd_embed.evaluation.metrics import Bootstrap, Statistic, intervals, point, retrieval_metrics
from rsicd_embed.reports.evaluation_types import Intervals, Metrics

Task = Literal["zeroshot", "retrieval", "probe"]
TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class SuitePlan:
    """The tasks of one dataset.

    Attributes:
        dataset: its name.
        tasks: the images of zero-shot classification and retrieval; None to leave out both.
        probe: the images of the probes; None to leave them out.
        chosen: the requested tasks.
        left_out: reasons why the dataset lacks a task.
    """

    dataset: str
    tasks: forgetting.Tasks | None
    probe: probe_protocol.ProbePlan | None
    chosen: tuple[Task, ...]
    left_out: tuple[str, ...]

    @property
    def examples(self) -> tuple[Example, ...]:
        """All images, each once."""
        tasks = self.tasks.examples if self.tasks else ()
        probe = self.probe.examples if self.probe else ()
        return tuple({example.id: example for example in (*tasks, *probe)}.values())

    @property
    def captions(self) -> tuple[str, ...]:
        """The distinct captions that are embedded for retrieval."""
        captioned = self.tasks.captioned if self.tasks else None
        return captioned[1].distinct if captioned and "retrieval" in self.chosen else ()

    @property
    def split(self) -> str:
        """The split that is scored."""
        return self.tasks.split if self.tasks else self.probe.names["split"] if self.probe else ""

    @property
    def images(self) -> int:
        """Number of images that are scored."""
        return len(self.tasks.examples if self.tasks else self.probe.test if self.probe else ())


def plan(evalset: EvalSet, split: str | None, chosen: Sequence[Task], seed: int) -> SuitePlan:
    """Plans the tasks that a dataset supports.

    Raises:
        DatasetError: the split is missing, or the dataset supports none of the requested tasks.
    """
    evalset.split(split)
    tasks, probe = None, None
    reasons: list[str] = []
    if {"zeroshot", "retrieval"} & set(chosen):
        try:
            tasks = forgetting.tasks(evalset, split)
            reasons += tasks.left_out
            supported = {"zeroshot": tasks.labelled, "retrieval": tasks.captioned}
            if not any(supported.get(task) for task in chosen):
                tasks = None
        except DatasetError as error:
            reasons.append(str(error))
    if "probe" in chosen:
        try:
            probe = probe_protocol.plan(evalset, split, "train", seed)
        except (BenchError, DatasetError) as error:
            reasons.append(f"no probe: {error}")
    if tasks is None and probe is None:
        raise DatasetError("; ".join(reasons))
    return SuitePlan(evalset.name, tasks, probe, tuple(chosen), tuple(reasons))


def scores(
    plan: SuitePlan,
    embedder: Embedder,
    images: Mapping[str, np.ndarray],
    captions: np.ndarray,
    prompts: Sequence[str],
    bootstrap: Bootstrap,
) -> tuple[Metrics, Intervals]:
    """Metrics of one model on one dataset, and their intervals.

    Args:
        plan: the dataset.
        embedder: the model, which embeds the prompts.
        images: float32 (dim,), unit vectors of `plan.examples` by id.
        captions: float32 (n, dim), unit vectors of `plan.captions`.
        prompts: texts with `{category}`.
        bootstrap: settings of the intervals.

    Returns:
        `zeroshot_top1…`, `i2t_r1…mr`, `mr_argsort` (see `retrieval.ARGSORT`), and `linear_top1…`,
        as far as the dataset supports them. `mr_argsort` has no interval.
    """
    metrics: Metrics = {}
    ends: Intervals = {}

    def add(statistic: Statistic, n: int, prefix: str = "") -> None:
        metrics.update({prefix + name: value for name, value in point(statistic, n).items()})
        bounds = intervals(statistic, n, bootstrap)
        ends.update({prefix + name: interval for name, interval in bounds.items()})

    if plan.tasks is not None and (chosen := plan.tasks.labelled) and "zeroshot" in plan.chosen:
        vectors = zeroshot.class_vectors(embedder, zeroshot.class_names(chosen.classes), prompts)
        rows = [plan.tasks.examples[row].id for row in chosen.rows]
        stacked = np.stack([images[name] for name in rows])
        ranks = zeroshot.classify(stacked, vectors, chosen.labels, chosen.classes).ranks
        add(zeroshot.statistic(ranks), len(ranks), "zeroshot_")
    if plan.tasks is not None and plan.tasks.captioned and "retrieval" in plan.chosen:
        places, pairs = plan.tasks.captioned
        stacked = np.stack([images[plan.tasks.examples[row].id] for row in places])
        add(retrieval.statistic(retrieval.rank(stacked, captions, pairs), pairs), pairs.images)
        in_order = retrieval.rank(stacked, captions, pairs, in_order=True)
        metrics["mr_argsort"] = retrieval_metrics(in_order.i2t, in_order.t2i)["mr"]
    if plan.probe is not None:
        probe = probe_protocol.report(plan.probe, images, bootstrap)
        metrics |= probe["metrics"]
        ends |= probe["intervals"]
    return metrics, ends
