"""Time from starting `rsicd-embed serve` until an open browser shows the first result's image.

    python scripts/bench_first_picture.py --store exact:./tiles -o runs/bench

The images of the store must still exist. Requires Chromium and playwright.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from rsicd_embed.reports import record
from rsicd_embed.reports.timing import TimingPlan, measure, rate_summary
from rsicd_embed.stores.base import open_store

COMMAND = [sys.executable, "-c", "from rsicd_embed.cli import main; main()", "serve", "--port", "0"]
SHOWN = "(image => image !== null && image.complete && image.naturalWidth > 0)"
PATIENCE_S = 60.0


def first_picture(browser: Any, store: str) -> int:
    """Returns nanoseconds from the start of a server until the first image is shown."""
    started = time.perf_counter_ns()
    command = [*COMMAND, "--store", store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                sys.exit(f"serve ended with status {server.wait()}")
            page = browser.new_page()
            page.goto(f"{line.split()[-1]}?text=a+harbour")
            while not page.evaluate(f"{SHOWN}(document.querySelector('.card img'))"):
                if time.perf_counter_ns() - started > PATIENCE_S * 1e9:
                    sys.exit(f"no image within {PATIENCE_S:.0f} s: does the store have any?")
            elapsed = time.perf_counter_ns() - started
            page.close()
        finally:
            server.terminate()
    return elapsed


def main() -> None:
    """Times several starts, each of a new server, with one browser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is missing: apt-get install chromium")
    with open_store(options.store) as store:
        rows = len(store)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take = {"start to first picture": lambda calls: first_picture(browser, options.store)}
        samples = measure(take, TimingPlan(rounds=options.rounds, least_s=0))
        browser.close()
    run = record.document(
        "first-picture",
        {"rows": rows, "rounds": options.rounds},
        command=shlex.join(["python", *sys.argv]),
    )
    run["complete"] = samples.complete
    run["candidates"] = {name: rate_summary(samples, name, 1, "starts") for name in take}
    for name, timed in run["candidates"].items():
        median, best = timed["ns"]["median"] / 1e9, timed["ns"]["min"] / 1e9
        print(f"{name}: median {median:.2f} s, best {best:.2f} s")
    print(f"record: {record.save(options.output, 'bench-first-picture', run)}")


if __name__ == "__main__":
    main()
