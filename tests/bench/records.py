"""Records as benchmarks write them, written by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MS = 1_000_000


def searched(recall: float, p50_ms: float, qps: float, peak_mb: float = 100) -> dict[str, Any]:
    """Results of one contender in a record of `bench ann`."""
    p50, p95, p99 = (p50_ms * times * MS for times in (1, 2, 3))
    rounds = [0.99, 1.0, 1.01, 1.0, 0.99, 1.01, 1.0]
    by_round = {
        f"{name}_ns": [value * factor for factor in rounds]
        for name, value in (("p50", p50), ("p95", p95), ("p99", p99))
    }
    return {
        "ann_recall": recall,
        "ann_recall_interval": [recall - 0.001, recall],
        "single": {"p50_ns": p50, "p95_ns": p95, "p99_ns": p99, "by_round": by_round},
        "batch": {
            "per_s": qps,
            "per_s_interval": [0.9 * qps, 1.1 * qps],
            "units_per_call": 100.0,
            "samples_ns": [100e9 / qps * factor for factor in rounds],
        },
        "batch_by_clients": {},
        "peak_bytes": int(peak_mb * 1e6),
    }


def ann(**changed: Any) -> dict[str, Any]:
    """A record of three stores, one of them with a sweep."""
    optimized = {
        "exact": searched(1.0, 8.0, 900, peak_mb=200),
        "nmslib": searched(0.999, 1.0, 5000, peak_mb=500),
        "library of nmslib": searched(0.999, 0.5, 9000),
        "lancedb": searched(1.0, 6.0, 1000, peak_mb=700),
    }
    sweep = [
        {
            "k": 10,
            "settings": {"nmslib": {"efSearch": ef}},
            "contenders": {"nmslib": searched(recall, p50, 10_000)},
        }
        for ef, recall, p50 in ((20, 0.9, 0.2), (100, 0.995, 0.4))
    ]
    built = {"samples_ns": [2e9, 2.1e9], "s": 2.05, "peak_bytes": [None]}
    contenders = {
        name: {"upsert": built, "optimize": built, "disk_bytes": 10**8} for name in optimized
    }
    machine = {"cpu": "a CPU", "cores": 2, "load_1min": 0.1, "packages": {"numpy": "2.4"}}
    return {
        "format": 1,
        "task": "ann",
        "command": "rsicd-embed bench ann",
        "started": "2026-11-26T12:00:00+00:00",
        "machine": machine | {"python": "3.11", "os": "Linux", "git": None},
        "settings": {"k": 10, "ks": [10], "stores": ["exact", "nmslib", "lancedb"], "rounds": 7},
        "vectors": {"source": "clustered", "rows": 100_000, "dim": 512},
        "queries": {"count": 300, "kinds": {"held out": 300}},
        "complete": True,
        "contenders": contenders,
        "ratios": [],
        "states": {
            "optimized": {
                "k": 10,
                "where": None,
                "contenders": optimized,
                "ratios": [],
                "overhead": {"null_ns": 70.0, "fraction": 0.0001, "goal": 0.02},
            }
        },
        "sweep": sweep,
        **changed,
    }


def changed(run: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    """A copy of a record with another value at a path of keys."""
    copied = copy.deepcopy(run)
    place = copied
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = to
    return copied


def write(path: Path, run: Any) -> Path:
    path.write_text(json.dumps(run), encoding="utf-8")
    return path


def damaged(folder: Path) -> list[tuple[Path, str]]:
    """Files that are not valid records, and the expected error of each."""
    (folder / "noise.json").write_bytes(b"\xff\xfe")
    run = ann()
    no_task = {name: value for name, value in run.items() if name != "task"}
    return [
        (folder / "absent.json", "expected a record, found No such file"),
        (folder / "noise.json", "expected a record in JSON"),
        (write(folder / "list.json", [1]), "expected a record of `rsicd-embed bench`"),
        (write(folder / "other.json", {"a": 1}), "expected a record of `rsicd-embed bench`"),
        (
            write(folder / "new.json", run | {"format": 2}),
            "expected a record of version 1, found 2",
        ),
        (
            write(folder / "none.json", no_task),
            "expected a record with the fields task, found none of them",
        ),
        (write(folder / "task.json", run | {"task": "tea"}), "found a record of 'tea'"),
    ]
