"""What pages say of `eval`: how good a model is, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rsicd_embed.reports import svg
from rsicd_embed.reports.page import Report, Section, table
from rsicd_embed.reports.svg import Bar

_MEANING = {
    "zeroshot": "The part of the images whose class is among the k most similar prompts.",
    "retrieval": "Retrieval R@k: the part of the queries with a right answer among the first k "
    "(not ANN recall@k, which is about what an index misses).",
    "probe": "Accuracy of a linear probe and of nearest neighbours on frozen features.",
}


def report(run: Mapping[str, Any]) -> Report:
    """From a record of `eval zeroshot`, `retrieval`, `probe` or `forgetting`."""
    title = f"{run['task'].capitalize()}: {run.get('model', 'predictions')}"
    if "dataset" in run:
        title += f" on {run['dataset']} {run['split']}"
    if "baseline" in run:
        title += f" beside {run['baseline']}"
    metrics = run.get("metrics", {})
    tiles = [(name, _figure(name, value)) for name, value in list(metrics.items())[:4]]
    if "n" in run:
        tiles.insert(0, ("images", f"{run['n']:,}"))
    return Report(title, tiles, list(_sections(run, metrics)))


def _sections(run: Mapping[str, Any], metrics: Mapping[str, float]) -> Iterator[Section]:
    shares = {name: value for name, value in metrics.items() if not _is_rank(name)}
    if shares:
        bars = []
        for at, (name, value) in enumerate(shares.items()):
            low, high = run.get("intervals", {}).get(name, (None, None))
            bars.append(Bar(name, value, f"{value:.3f}", low, high, at // 3 % svg.SERIES))
        words = f"{_MEANING.get(run['task'], '')} Lines are 95% bootstrap intervals."
        yield Section("Metrics", words, svg.bars(bars, "metrics") + _figures(run, metrics))
    classes = run.get("per_class")
    if classes:
        yield _classes(classes)
    for one in run.get("datasets", ()):
        yield _gained(one)
    if run.get("notes"):
        rows = [("",), *((one,) for one in run["notes"])]
        yield Section("Notes", "What to know about these figures.", table(rows))


def _figures(run: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    ceiling = run.get("ceiling", {})
    rows = [("", run["split"], "95%", *(("ceiling",) if ceiling else ()))]
    for name, value in metrics.items():
        ends = run.get("intervals", {}).get(name)
        told = "–".join(_figure(name, one) for one in ends) if ends else ""
        best = (_figure(name, ceiling[name]) if name in ceiling else "",) if ceiling else ()
        rows.append((name, _figure(name, value), told, *best))
    return table(rows)


def _classes(classes: list[dict[str, Any]]) -> Section:
    ordered = sorted(
        (one for one in classes if one["n"]), key=lambda one: float(one.get("top1") or 0)
    )
    bars = [
        Bar(
            f"{one['class']} ({one['n']})",
            one["top1"],
            f"{one['top1']:.2f}"
            + (f", {one['most_mistaken_for']}" if one.get("most_mistaken_for") else ""),
        )
        for one in ordered
    ]
    words = "Top-1 of each class (images), the worst first, with what it is mistaken for most."
    return Section("Classes", words, svg.bars(bars, "classes"))


def _gained(told: Mapping[str, Any]) -> Section:
    rows = [("", "baseline", "model", "difference", "95%")]
    for metric, one in told["metrics"].items():
        ends = "–".join(f"{end:+.3f}" for end in one["interval"])
        values = (f"{one['baseline']:.3f}", f"{one['model']:.3f}", f"{one['difference']:+.3f}")
        rows.append((metric, *values, ends))
    name = f"{told['dataset']} {told['split']}, {told['n']:,} images"
    return Section(name, "What the model gained or lost beside the baseline.", table(rows))


def _is_rank(name: str) -> bool:
    return "median" in name


def _figure(name: str, value: float) -> str:
    return f"{value:g}" if _is_rank(name) else f"{value:.3f}"
