"""Whether a benchmark says the same twice: runs it two times, and compares the spreads it tells.

    python scripts/bench_agreement.py -o benchmarks/agreement-ann -- ann --rows 10000 --dim 256

What follows `--` goes to `rsicd-embed bench`. Two runs agree on a figure where its 95% intervals
over the rounds overlap; figures without rounds, such as memory, are left out.
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
from rsicd_embed.reports.statistics import median_interval

Interval = tuple[float, float]
BENCH = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "bench"]
_LEAST_ROUNDS = 3


def spreads(run: Mapping[str, Any]) -> dict[str, Interval]:
    """The interval of each figure of a record that was sampled, and of each ratio."""
    found = {
        name: median_interval(figure.samples)
        for name, figure in figures(run).items()
        if len(figure.samples) >= _LEAST_ROUNDS
    }
    return found | dict(_ratios(run))


def _ratios(told: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Interval]]:
    for key, value in told.items():
        if key == "ratios":
            for one in value:
                if one.get("n", _LEAST_ROUNDS) >= _LEAST_ROUNDS:
                    name = f"{where}{one['of']} to {one['to']}: {one.get('what', 'rate')}"
                    yield name, (one["interval"][0], one["interval"][1])
        elif isinstance(value, Mapping):
            yield from _ratios(value, f"{key}: ")


def compared(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of both runs, their intervals, and whether these overlap."""
    first, second = spreads(one), spreads(other)
    return [
        {
            "figure": name,
            "intervals": [[record.significant(end) for end in some] for some in (mine, its)],
            "agree": mine[0] <= its[1] and its[0] <= mine[1],
        }
        for name, mine in first.items()
        if (its := second.get(name))
    ]


def run_of(words: list[str]) -> dict[str, Any]:
    """The record of a run of `rsicd-embed bench`."""
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as folder:
        command = [*BENCH, *words, "-o", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (path,) = Path(folder).glob("*.json")
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return run


def main() -> None:
    """Runs and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("words", nargs="+", help="for `rsicd-embed bench`, without -o")
    given = parser.parse_args()
    command = shlex.join(["python", "scripts/bench_agreement.py", "-o", "DIR", "--", *given.words])
    run = record.document("agreement", {"bench": given.words}, command=command)
    runs = [run_of(given.words) for _ in range(2)]
    found = compared(*runs)
    run["complete"] = all(one["complete"] for one in runs)
    run["started_each"] = [one["started"] for one in runs]
    run["load_1min_each"] = [one["machine"]["load_1min"] for one in runs]
    run["others_share_each"] = [one["machine"]["others_share"] for one in runs]
    run["figures"] = found
    for one in found:
        told = " and ".join("{:.4g}–{:.4g}".format(*some) for some in one["intervals"])
        print(f"{one['figure']}: {told}" + ("" if one["agree"] else "  DIFFER"))
    print(f"{sum(one['agree'] for one in found)} of {len(found)} figures agree")
    print(f"others took these parts of the processors: {run['others_share_each']}")
    print(f"record: {record.save(given.output, 'agreement', run)}")


if __name__ == "__main__":
    main()
