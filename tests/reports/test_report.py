"""HTML pages in a real browser: self-contained, and with all points."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rsicd_embed.reports import record_pages, svg
from rsicd_embed.reports.record import read
from rsicd_embed.reports.record_metrics import ann_points
from tests.bench import records
from tests.helpers import run

RECORDED = sorted(records.BENCHMARKS.glob("*/bench-*.json"))


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page of records, and fails on console messages and external requests."""
    page = browser.new_page(color_scheme="dark")
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    own = ("file://", "data:")
    page.on(
        "request", lambda request: request.url.startswith(own) or complaints.append(request.url)
    )

    def open_records(*runs: dict[str, Any]) -> Any:
        page.goto(record_pages.save(tmp_path / "report.html", runs).as_uri())
        return page

    yield open_records
    page.close()
    assert complaints == []


def marks(page: Any, title: str, kind: str = "circle.point") -> int:
    """The number of marks in the section with this title."""
    section = page.locator("section", has=page.get_by_role("heading", name=title, exact=True))
    return int(section.locator(kind).count())


def test_all_points_are_plotted(open_page: Callable[..., Any]) -> None:
    record = records.ann()
    page = open_page(record)
    assert marks(page, "ANN recall@10 against latency") == len(ann_points(record, 10)) == 6
    assert marks(page, "ANN recall@10 against latency", "polyline") == 1
    assert marks(page, "Latency, optimized") == 3 * 4
    assert marks(page, "Queries per second", "rect.bar") == 4
    assert marks(page, "Build time", "rect.bar") == 4
    assert page.locator("h1").inner_text().startswith("Vector search: 100,000 vectors of length")
    titles = page.locator("circle.point title").all_text_contents()
    assert "nmslib, efSearch=20: ANN recall@10 0.9000, p50 0.2 ms, p95 0.4 ms" in titles
    tiles = page.locator(".tile").all_inner_texts()
    assert any(tile.startswith("0.4 ms") and "nmslib, efSearch=100" in tile for tile in tiles)
    assert page.locator(".warn").count() == 0
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(13, 17, 23)"
    page.emulate_media(color_scheme="light")
    assert page.evaluate(background) == "rgb(251, 251, 252)"


def test_recorded_runs_in_one_page(open_page: Callable[..., Any]) -> None:
    runs = [read(path) for path in RECORDED]
    page = open_page(*runs)
    assert page.locator("h1").count() == len(runs) >= 10
    assert page.locator("pre").all_text_contents() == [run["command"] for run in runs]
    wide = page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert wide


def test_an_interrupted_run_is_marked(open_page: Callable[..., Any]) -> None:
    page = open_page(records.ann(complete=False))
    assert "This run was interrupted" in page.locator(".warn").inner_text()


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_every_page_is_well_formed_and_self_contained(path: Path) -> None:
    text = record_pages.html([read(path)])
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|@import|<script|<link rel=.style", text)
    for drawing in re.findall(r"<svg.*?</svg>", text):
        for element in ElementTree.fromstring(drawing).iter():
            for name in ("cx", "cy", "x", "y", "width"):
                assert 0 <= float(element.get(name, 0)) < 1000


def test_names_are_escaped() -> None:
    record = records.ann(command='rsicd-embed bench ann --store "exact:<b>&"')
    assert "exact:&lt;b&gt;&amp;" in record_pages.html([record])
    drawn = svg.bars([svg.Bar("<i>", 1, "<u>")], '"')
    assert "<i>" not in drawn
    ElementTree.fromstring(drawn)


def test_the_share_axis_spreads_values_near_one() -> None:
    axis = svg.share_axis("ANN recall@10", [0.5, 1.0])
    places = [axis.place(value) for value in (0.5, 0.9, 0.99, 0.999, 1.0)]
    assert places == sorted(places)
    assert places[-1] == 1.0
    assert places[2] - places[1] == pytest.approx(places[3] - places[2])
    assert [text for _, text in axis.ticks][-1] == "1"


def test_evaluations(open_page: Callable[..., Any]) -> None:
    record = copy.deepcopy(records.ann())
    for name in ("states", "sweep", "contenders", "vectors", "queries"):
        del record[name]
    metrics = {"top1": 0.8, "top5": 0.95}
    record |= {"task": "zeroshot", "dataset": "rsicd", "split": "test", "n": 20, "model": "m"}
    record |= {"metrics": metrics, "intervals": {"top1": [0.7, 0.9], "top5": [0.9, 1.0]}}
    beach = {"class": "beach", "n": 20, "top1": 0.8, "most_mistaken_for": "sea", "mistaken": 4}
    zeroshot = record | {"per_class": [beach, beach | {"class": "bare", "n": 0, "top1": None}]}
    retrieval = record | {"task": "retrieval", "ceiling": {"t2i_r1": 0.93}}
    retrieval |= {"metrics": {"t2i_r1": 0.1, "t2i_median_rank": 31.0}}
    compared = {"baseline": 0.5, "model": 0.8, "difference": 0.3, "interval": [0.2, 0.4]}
    changes = {"dataset": "ucm", "split": "test", "n": 9, "metrics": {"zeroshot_top1": compared}}
    forgetting = {name: record[name] for name in ("machine", "settings", "command", "started")}
    forgetting |= {"task": "forgetting", "model": "m", "baseline": "b", "datasets": [changes]}
    page = open_page(zeroshot, retrieval, forgetting)
    assert page.locator("h1").all_inner_texts() == [
        "Zeroshot: m on rsicd test",
        "Retrieval: m on rsicd test",
        "Forgetting: m compared with b",
    ]
    assert page.locator("rect.bar").count() == 2 + 1 + 1
    assert "Retrieval R@k" in page.locator("main").inner_text()
    assert "+0.300" in page.locator("main").inner_text()


def test_the_command(tmp_path: Path) -> None:
    done = run("bench", "report", RECORDED[0], RECORDED[-1], "-o", tmp_path / "out")
    assert done.status == 0, done.stderr
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert text.count("<h1") == 2
    for path, message in records.damaged(tmp_path):
        assert message in run("bench", "report", path, "-o", tmp_path / "out").error
