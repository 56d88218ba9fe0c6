"""Run-to-run variation of a benchmark: runs it twice and compares the intervals of both runs.

    python scripts/bench_agreement.py -o benchmarks/agreement-ann -- ann --rows 10000 --dim 256

Arguments after `--` are passed to `rsicd-embed bench`. Two runs agree on a metric if their 95%
intervals over the rounds overlap. Metrics without rounds, such as memory usage, are left out.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rsicd_embed.reports import record
from rsicd_embed.reports.record_metrics import figures
from rsicd_embed.reports.timing import median_interval, significant

Interval = tuple[float, float]
BENCH = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "bench"]
_LEAST_ROUNDS = 3


def spreads(run: Mapping[str, Any]) -> dict[str, Interval]:
    """The interval of each metric of a record that was sampled, and of each ratio."""
    intervals = {
        name: median_interval(figure.samples)
        for name, figure in figures(run).items()
        if len(figure.samples) >= _LEAST_ROUNDS
    }
    return intervals | dict(_ratios(run))


def _ratios(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Interval]]:
    for key, value in fields.items():
        if key == "ratios":
            for ratio in value:
                if ratio.get("n", _LEAST_ROUNDS) >= _LEAST_ROUNDS:
                    quantity = ratio.get("what", "rate")
                    name = f"{prefix}{ratio['of']} to {ratio['to']}: {quantity}"
                    yield name, (ratio["interval"][0], ratio["interval"][1])
        elif isinstance(value, Mapping):
            yield from _ratios(value, f"{key}: ")


def compared(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The common metrics of both runs, their intervals, and whether these overlap."""
    others = spreads(second)
    return [
        {
            "figure": name,
            "intervals": [[significant(end) for end in interval] for interval in (ours, theirs)],
            "agree": ours[0] <= theirs[1] and theirs[0] <= ours[1],
        }
        for name, ours in spreads(first).items()
        if (theirs := others.get(name))
    ]


def run_bench(words: list[str]) -> dict[str, Any]:
    """Runs `rsicd-embed bench` and returns its record."""
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as folder:
        command = [*BENCH, *words, "-o", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (path,) = Path(folder).glob("*.json")
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return run


def main() -> None:
    """Runs the benchmark twice and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("words", nargs="+", help="arguments of `rsicd-embed bench`, without -o")
    options = parser.parse_args()
    command = shlex.join(
        ["python", "scripts/bench_agreement.py", "-o", "DIR", "--", *options.words]
    )
    run = record.document("agreement", {"bench": options.words}, command=command)
    runs = [run_bench(options.words) for _ in range(2)]
    metrics = compared(*runs)
    run["complete"] = all(each["complete"] for each in runs)
    run["started_each"] = [each["started"] for each in runs]
    run["load_1min_each"] = [each["machine"]["load_1min"] for each in runs]
    run["others_share_each"] = [each["machine"]["others_share"] for each in runs]
    run["figures"] = metrics
    for metric in metrics:
        ends = " and ".join("{:.4g}–{:.4g}".format(*interval) for interval in metric["intervals"])
        print(f"{metric['figure']}: {ends}" + ("" if metric["agree"] else "  DIFFER"))
    print(f"{sum(metric['agree'] for metric in metrics)} of {len(metrics)} metrics agree")
    print(f"other processes used these fractions of the CPU time: {run['others_share_each']}")
    print(f"record: {record.save(options.output, 'agreement', run)}")


if __name__ == "__main__":
    main()
