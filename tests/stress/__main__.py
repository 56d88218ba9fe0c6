"""Kills writers of stores, makes their disk fail, damages their files, and counts the outcomes.

    python -m tests.stress --kills 200 --mutations 10000 -o docs/stress.json

Exits with 1 if a store lost or invented data, or if a damaged one gave a wrong result or crashed
the process.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from rsicd_embed import files
from rsicd_embed.reports import record

from .corruption import corrupt
from .faults import fail
from .kills import kill

STORES = ("exact", "nmslib", "lancedb")


def timed(title: str, task: Any, *arguments: object) -> dict[str, Any]:
    """Runs a task; returns its outcome and duration."""
    started = time.monotonic()
    # Not asdict, which would turn a Counter into a count of its items.
    outcome = vars(task(*arguments)) | {"seconds": round(time.monotonic() - started, 1)}
    brief = {name: value for name, value in outcome.items() if not isinstance(value, (dict, list))}
    print(f"{title}: {brief}", file=sys.stderr)
    for problem in [*outcome.get("failures", ()), *outcome.get("examples", ())]:
        print(f"  {problem}", file=sys.stderr)
    return outcome


def write(text: str, path: Path) -> None:
    """Writes a record."""
    path.write_text(text, encoding="utf-8")


def failed(outcome: dict[str, Any]) -> bool:
    """Whether an outcome shows a defect."""
    if "examples" in outcome:
        return bool(outcome["unclear"] or outcome["wrong"] or outcome["crashed"])
    return bool(outcome["failures"])


def main() -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--store", action="append", choices=STORES, help="default: all")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=12, help="changes that fail at each step")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    stores = tuple(options.store or STORES)
    settings = {"stores": stores, "kills": options.kills, "faults": options.faults}
    settings |= {"mutations": options.mutations, "seed": options.seed}
    output = ("-o", "--output", str(options.output))
    arguments = [argument for argument in sys.argv[1:] if argument not in output]
    command = shlex.join(["python", "-m", "tests.stress", *arguments])
    run = record.document("stress-stores", settings, command=command)
    run["stores"] = {}
    for scheme in stores:
        run["stores"][scheme] = {
            "kills": timed(f"{scheme}, kills", kill, scheme, options.kills, options.seed),
            "faults": timed(f"{scheme}, faults", fail, scheme, options.faults, options.seed),
            "corruption": timed(
                f"{scheme}, corruption", corrupt, scheme, options.mutations, options.seed
            ),
        }
        text = json.dumps(run, indent=1, ensure_ascii=False) + "\n"
        if options.output:
            files.write_file(options.output, partial(write, text))
    if not options.output:
        print(text, end="")
    if any(failed(outcome) for store in run["stores"].values() for outcome in store.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
