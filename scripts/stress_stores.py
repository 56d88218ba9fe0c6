"""Kills writers of stores, makes their disk fail, and damages their files; counts what comes of it.

    python scripts/stress_stores.py --kills 200 --mutations 10000 -o docs/stress.json

Exits with 1 where a store lost or made up something, or a damaged one gave a wrong answer or
stopped the process.
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
from rsicd_embed.testing.stress.corruption import corrupt
from rsicd_embed.testing.stress.faults import fail
from rsicd_embed.testing.stress.kills import kill

STORES = ("exact", "nmslib", "lancedb")


def timed(what: str, task: Any, *arguments: object) -> dict[str, Any]:
    """What a task found, and how long it took."""
    started = time.monotonic()
    # Not asdict: it counts the pairs of a Counter.
    found = vars(task(*arguments)) | {"seconds": round(time.monotonic() - started, 1)}
    brief = {name: value for name, value in found.items() if not isinstance(value, (dict, list))}
    print(f"{what}: {brief}", file=sys.stderr)
    for problem in [*found.get("failures", ()), *found.get("examples", ())]:
        print(f"  {problem}", file=sys.stderr)
    return found


def write(text: str, path: Path) -> None:
    """Writes a record."""
    path.write_text(text, encoding="utf-8")


def bad(found: dict[str, Any]) -> bool:
    """Whether there is something to mend."""
    if "examples" in found:
        return bool(found["unclear"] or found["wrong"] or found["crashed"])
    return bool(found["failures"])


def main() -> None:
    """Stresses the stores one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="append", choices=STORES, help="default: all")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=12, help="changes made to fail at each step")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    stores = tuple(options.store or STORES)
    settings = {"stores": stores, "kills": options.kills, "faults": options.faults}
    settings |= {"mutations": options.mutations, "seed": options.seed}
    given = [one for one in sys.argv[1:] if one not in ("-o", "--output", str(options.output))]
    command = shlex.join(["python", "scripts/stress_stores.py", *given])
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
    if any(bad(found) for one in run["stores"].values() for found in one.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
