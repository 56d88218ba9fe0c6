"""Compares the three stores over random rows, conditions and files.

    python -m tests.differential --cases 10000 -o docs/differential.json

A case is a column that is read back, a column that is exported and imported into another store, a
condition, or an aggregate, each in all three stores. Exits with 1 if a store differs from the rows
written to it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from rsicd_embed import files
from rsicd_embed.reports import record

from .comparison import check


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--cases", type=int, default=10_000, help="minimum number of cases")
    parser.add_argument("--seed", type=int, default=0, help="first random seed")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    started = time.monotonic()
    command = f"python -m tests.differential --cases {options.cases} --seed {options.seed}"
    settings = {"cases": options.cases, "seed": options.seed}
    run = record.document("differential-stores", settings, command=command)
    cases: Counter[str] = Counter()
    failures: list[dict[str, object]] = []
    rounds = 0
    while cases.total() < options.cases and len(failures) < 20:
        seed = options.seed + rounds
        rounds += 1
        with TemporaryDirectory() as folder:
            try:
                cases += check(Random(seed), Path(folder))
            except Exception as error:
                failures.append({"seed": seed, "problem": f"{type(error).__name__}: {error}"})
                print(failures[-1], file=sys.stderr)
    run |= {
        "rounds": rounds,
        "cases": {**cases, "total": cases.total()},
        "failures": failures,
        "seconds": round(time.monotonic() - started, 1),
    }
    text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
    if options.output:
        files.write_file(options.output, partial(_write, text))
    else:
        print(text, end="")
    if failures:
        raise SystemExit(1)


def _write(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
