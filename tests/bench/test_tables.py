"""The page of recorded runs says what the records say."""

from __future__ import annotations

from scripts import bench_tables


def test_the_page_is_made_from_the_records() -> None:
    page = (bench_tables.FOLDER / "README.md").read_text(encoding="utf-8")
    assert page == bench_tables.page(), "run: python scripts/bench_tables.py"
    assert page.count("\n## ") >= 5
