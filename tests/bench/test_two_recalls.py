"""*ANN recall@k* and *retrieval R@k* are never called by one word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# The stores know only one of the two.
PACKAGES = ("bench", "evaluation", "reports", "cli", "server", "find")
PLACES = (*(f"rsicd_embed/{name}" for name in PACKAGES), "docs", "scripts", "examples")
ENDINGS = {".py", ".md", ".html", ".js", ".ipynb"}
# `bench recommend --recall` says in its help which it is.
UNSAID = re.compile(r"(?<!\bann[ _-])(?<!--)recall", re.IGNORECASE)


def texts() -> list[Path]:
    found = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for place in (*PLACES, "benchmarks"):
        found += [path for path in (PROJECT / place).rglob("*") if path.suffix in ENDINGS]
    return found


def test_a_recall_is_said_to_be_that_of_an_index() -> None:
    assert len(texts()) > 100
    found = [
        f"{path.relative_to(PROJECT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNSAID.search(line)
    ]
    assert not found, "\n".join(["say ANN recall or retrieval R@k:", *found])


@pytest.mark.parametrize("told", ["recall@10", "retrieval recall", "Recall of", "planned_recall"])
def test_what_is_not_said(told: str) -> None:
    assert UNSAID.search(told)


@pytest.mark.parametrize("told", ["ANN recall@10", "ann_recall_by_kind", "retrieval R@10"])
def test_what_is_said(told: str) -> None:
    assert not UNSAID.search(told)
