"""*ANN recall@k* and *retrieval R@k* are never both called recall."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
# The stores only have ANN recall.
PACKAGES = ("bench", "evaluation", "reports", "cli", "server", "find")
PLACES = (*(f"rsicd_embed/{name}" for name in PACKAGES), "docs", "scripts", "examples")
ENDINGS = {".py", ".md", ".html", ".js", ".ipynb"}
# The help of `bench recommend --recall` says which one it is.
UNSAID = re.compile(r"(?<!\bann[ _-])(?<!--)recall", re.IGNORECASE)


def texts() -> list[Path]:
    matches = [PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    for place in (*PLACES, "benchmarks"):
        matches += [path for path in (PROJECT / place).rglob("*") if path.suffix in ENDINGS]
    return matches


def test_every_recall_is_an_ann_recall() -> None:
    assert len(texts()) > 100
    matches = [
        f"{path.relative_to(PROJECT)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNSAID.search(line)
    ]
    assert not matches, "\n".join(["say ANN recall or retrieval R@k:", *matches])


@pytest.mark.parametrize("text", ["recall@10", "retrieval recall", "Recall of", "planned_recall"])
def test_ambiguous_texts(text: str) -> None:
    assert UNSAID.search(text)


@pytest.mark.parametrize("text", ["ANN recall@10", "ann_recall_by_kind", "retrieval R@10"])
def test_unambiguous_texts(text: str) -> None:
    assert not UNSAID.search(text)
