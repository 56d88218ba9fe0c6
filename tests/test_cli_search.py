"""`rsicd-embed search`: text and JSON output, the model, and explained scores."""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rsicd_embed
from rsicd_embed import Part, Query
from rsicd_embed.cli.hit_output import _short
from rsicd_embed.cli.terminal_text import number_text, shows_links, value_text
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import open_store

from .conftest import picture
from .helpers import IDS, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


def test_attributes_in_json(uri: str, pictures: Path, tiny_model: Path) -> None:
    """NaN and infinity become null, and times become text; other values keep their type."""
    table = pa.table(
        {
            "path": ["a.png"],
            "nan": [math.nan],
            "inf": [math.inf],
            "list": [[math.nan, 1.5]],
            "at": [dt.datetime(2020, 5, 17)],
            "flag": [True],
            "count": [3],
            "none": pa.array([None], pa.string()),
        }
    )
    pyarrow.parquet.write_table(table, pictures / "m.parquet")
    run("ingest", pictures / "m.parquet", "--store", uri, "--model", tiny_model)
    (hit,) = run("search", "port", "--store", uri, "--json").document["hits"]
    assert {name: hit[name] for name in table.column_names[1:]} == {
        "nan": None, "inf": None, "list": [None, 1.5], "at": "2020-05-17 00:00:00",
        "flag": True, "count": 3, "none": None,
    }  # fmt: skip
    plain = run("search", "port", "--store", uri).stdout
    assert plain.count("\n") == 1
    assert (
        "a.png  nan=nan  inf=inf  list=[nan, 1.5]  at=2020-05-17 00:00:00  flag=True  count=3"
        in plain
    )


def test_where_is_applied_before_k(stored: str) -> None:
    search = ("search", "port", "--store", stored, "-k", 2, "--json", "--where")
    hits = run(*search, "id in ('c.jpg', 'd.tif') and width > 1").document["hits"]
    assert sorted(hit["id"] for hit in hits) == ["c.jpg", "d.tif"]
    nothing = run("search", "port", "--store", stored, "--where", "width > 999")
    assert (nothing.status, nothing.stdout) == (0, "")
    assert nothing.stderr.startswith("no hits")
    assert run(*search, "width > 999").document["hits"] == []


def test_composed_queries(stored: str, tiny_model: Path, pictures: Path) -> None:
    search = ("search", "--store", stored, "--json", "-k", 3)
    composed = (
        "port",
        "2*beach",
        "--not",
        "rain",
        "--like",
        "a.png",
        "--image",
        pictures / "b.png",
    )
    document = run(*search, *composed, "--offset", 1).document
    parts = [
        Part("port"), Part("beach", weight=2.0), Part(image=str(pictures / "b.png")),
        Part(id="a.png"), Part("rain", weight=-0.5),
    ]  # fmt: skip
    with open_store(stored) as store:
        embedder = rsicd_embed.load_embedder(tiny_model)
        hits = rsicd_embed.search(Query(parts, k=3, offset=1), store, embedder)
    assert [(hit["rank"], hit["id"]) for hit in document["hits"]] == list(
        zip(hits["rank"].to_pylist(), hits["id"].to_pylist(), strict=True)
    )
    assert document["query"].startswith("port, 2*beach, ")
    assert document["parts"][1] == {"text": "beach", "weight": 2.0}
    best = run(*search, "port").document["hits"][0]
    above = run(*search, "port", "--all", "--min-score", best["score"]).document["hits"]
    assert above == [best]
    likes = run(*search, "--like", "a.png").document["hits"]
    assert "a.png" not in [hit["id"] for hit in likes]
    assert run(*search, "--like", "a.png", "--with-examples").document["hits"][0]["id"] == "a.png"


def test_mistaken_arguments_are_refused(stored: str, pictures: Path) -> None:
    before = (pictures / "a.png").read_bytes()
    assert run("search", "port", "--store", stored, "--html", pictures / "a.png").status == 2
    assert (pictures / "a.png").read_bytes() == before
    assert run("search", "  ", "--store", stored).status == 2
    assert run("search", "--store", stored).status == 2
    for mistake, message in (
        (("--not", "port"), "to look for"),
        (("port", "--not", "2*port"), "cancel out"),
        (("--like", "nobody"), "no row with the id 'nobody'"),
        (("port", "--min-score", 2), "from -1 to 1"),
        (("port", "--hybrid"), "expected a text column for a hybrid search"),
        (("port", "--hybrid", "--text-column", "width"), "found 'width' with the type int32"),
        (("port", "--text-column", "label"), "a text column is for hybrid searches"),
        (("port", "--prompts", "maps"), "expected prompts named none, photograph, aerial"),
        (("port", "--within", "0,0,1,1"), "expected rows with coordinates"),
        (("port", "--within", "nowhere.geojson"), "No such file"),
        (("port", "--near", "0,0,5"), "expected LON,LAT,RADIUS with a unit"),
        (("port", "--near", "0,0,5km"), "expected rows with coordinates"),
        (("port", "--contained"), "contained needs a place"),
    ):
        assert message in run("search", *mistake, "--store", stored).error


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line(stored: str) -> None:
    outcome = run("search", "boats " * 60, "--store", stored, "--json")
    assert outcome.status == 0
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("warning: 1 of 1 texts are longer than the model's context")
    assert len(outcome.document["hits"]) == 5


def test_lists_in_text_output(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    row = {"path": "a.png", "bbox": [7.5, -60, 15.25, 0], "captions": ["the first", "a second"]}
    (pictures / "m.jsonl").write_text(json.dumps(row) + "\n")
    store = f"exact:{tmp_path / 'store'}"
    run("ingest", pictures / "m.jsonl", "--store", store, "--model", tiny_model)
    (line,) = run("search", "port", "--store", store).stdout.splitlines()
    place = pictures / "a.png"
    assert line.endswith(f"a.png  bbox=[7.5, -60, 15.25, 0]  captions=the first  {place}")


def test_search_uses_the_model_of_the_store(
    stored: str, tiny_model: Path, other_model: Path
) -> None:
    own = run("search", "port", "--store", stored, "--json").document
    assert own == run("search", "port", "--store", stored, "--json", "--model", tiny_model).document
    refused = run("search", "port", "--store", stored, "--json", "--model", other_model).error
    assert f"contains vectors of model '{tiny_model}'" in refused
    assert f"pass --model {tiny_model}" in refused


def test_moved_model(stored: str, tiny_model: Path, tmp_path: Path) -> None:
    with rsicd_embed.open_store(stored) as store:
        made_by = store.provenance
    gone = Provenance(str(tmp_path / "gone"), made_by.fingerprint, made_by.dim)
    uri = f"exact:{tmp_path / 'moved'}"
    open_store(uri, gone).close()
    error = run("search", "port", "--store", uri).error
    assert "pass its new path with --model" in error
    assert str(tmp_path / "gone") in error
    assert run("search", "port", "--store", uri, "--model", tiny_model).status == 0


def test_control_characters_are_escaped(uri: str, pictures: Path, tiny_model: Path) -> None:
    name = 'two\nlines\x1b[31m "ü海".png'
    picture(9).save(pictures / name)
    bad = pictures / "bad\n.png"
    bad.write_text("")
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model)
    assert outcome.stderr == f"skipped {pictures}/bad\\n.png: empty file\n"
    search = ("search", "--image", pictures / name, "--store", uri, "-k", 1)
    assert 'two\\nlines\\x1b[31m "ü海".png' in run(*search).stdout
    document = run(*search, "--json").document
    assert document["hits"][0]["id"] == name
    assert document["query"] == str(pictures / name)


def test_short_values() -> None:
    assert _short("x" * 61) == "x" * 59 + "…"
    shown = [_short(value) for value in ([], ["a", "b"], 0.123456789, 5)]
    assert shown == ["", "a", "0.123457", "5"]


def test_numbers_keep_their_digits() -> None:
    """Degrees to six decimals and metres to three, without exponents for map coordinates."""
    shown = {
        320712.53: "320712.53", -7.1234567: "-7.123457", 12.5: "12.5", 4649776.22: "4649776.22",
        1e9: "1000000000", 179.9999999: "180", 0.0123456789: "0.0123457", -0.0: "-0",
        7138.181063: "7138.181", 1e-7: "1e-07", 1e300: "1e+300", math.inf: "inf",
    }  # fmt: skip
    assert {value: number_text(value) for value in shown} == shown
    assert value_text({"lon": 12.3456789, "at": None}) == "{lon: 12.345679, at: NULL}"


@settings(max_examples=200, derandomize=True)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_shown_numbers_are_accurate(value: float) -> None:
    shown = float(number_text(value))
    decimals = 3 if abs(value) > 360 else 6
    assert abs(shown - value) <= max(5.1 * 10 ** -(decimals + 1), abs(value) * 1e-15) and (
        shown == pytest.approx(value, rel=1e-5)
    )


def test_coordinates_in_text_and_table(pictures: Path, tiny_model: Path, uri: str) -> None:
    row = {"path": "a.png", "lon": -123.1234567, "x": 320712.534}
    (pictures / "m.jsonl").write_text(json.dumps(row) + "\n")
    run("ingest", pictures / "m.jsonl", "--store", uri, "--model", tiny_model)
    assert "lon=-123.123457  x=320712.534" in run("search", "port", "--store", uri).stdout
    table = run("sql", "SELECT lon, x FROM images", "--store", uri).stdout.splitlines()
    assert table[-1].split() == ["-123.123457", "320712.534"]
    (hit,) = run("search", "port", "--store", uri, "--json").document["hits"]
    assert (hit["lon"], hit["x"]) == (row["lon"], row["x"])


def test_hits_link_to_their_files(
    stored: str, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As text in a pipe, and as a link on a terminal with links; never in JSON."""
    search = ("search", "--image", pictures / "a.png", "--store", stored, "-k", 1)
    place = pictures / "a.png"
    assert run(*search).stdout.rstrip().endswith(f"a.png  {place}")
    monkeypatch.setenv("FORCE_HYPERLINK", "1")
    assert "\x1b" not in run(*search).stdout  # not a terminal
    monkeypatch.setattr("rsicd_embed.cli.terminal_text.sys", SimpleNamespace(stdout=Terminal()))
    link = f"\x1b]8;;{place.as_uri()}\x1b\\{place}\x1b]8;;\x1b\\"
    assert run(*search).stdout.rstrip().endswith(f"a.png  {link}")
    assert "\x1b" not in run(*search, "--json").stdout
    monkeypatch.setenv("FORCE_HYPERLINK", "0")
    assert run(*search).stdout.rstrip().endswith(f"a.png  {place}")


class Terminal:
    """A stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"VTE_VERSION": "7600"}, True),
        ({"VTE_VERSION": "4800"}, False),
        ({"VTE_VERSION": "7600", "TERM": "dumb"}, False),
        ({"KITTY_WINDOW_ID": "1"}, True),
        ({"KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, False),
        ({"TERM": "xterm-256color"}, False),
        ({}, False),
    ],
)
def test_terminals_with_links(environment: dict[str, str], shown: bool) -> None:
    assert shows_links(environment) is shown


@pytest.fixture
def stored_with_words(tiny_model: Path, pictures: Path, tmp_path: Path) -> str:
    """A store whose model was trained on two words."""
    model = Path(shutil.copytree(tiny_model, tmp_path / "trained"))
    TrainingWords({"port": 30, "boats": 20}).write(model)
    uri = f"exact:{tmp_path / 'trained-store'}"
    assert run("ingest", pictures, "--store", uri, "--model", model).status == 0
    return uri


def test_unknown_words_are_reported(stored_with_words: str) -> None:
    line = (
        "'marina' never occurred in this model's training captions, so the ranking may be "
        "meaningless; known words near it: port, boats"
    )
    plain = run("search", "boats in a marina", "--store", stored_with_words)
    assert (plain.status, plain.stderr) == (0, f"warning: {line}\n")
    search = ("--store", stored_with_words, "--json")
    assert run("search", "a Marina", *search).document["warnings"] == [line]
    known = run("search", "boats in a port", *search)
    assert (known.document["warnings"], known.stderr) == ([], "")


@pytest.mark.filterwarnings("default:'marina' never occurred")
def test_sql_and_find_report_unknown_words(stored_with_words: str, pictures: Path) -> None:
    query = "SELECT id FROM images WHERE similarity('a marina') > 2"
    answer = run("sql", query, "--store", stored_with_words)
    assert answer.status == 0
    assert answer.stderr.startswith("warning: 'marina' never occurred")
    with rsicd_embed.open_store(stored_with_words) as store:
        model = store.info().model
    find = ("find", "boats", pictures / "a.png", "--model", model)
    assert run(*find, "--json").document["warnings"] == []
    (line,) = run(*find, "--against", "a mosque", "--json").document["warnings"]
    assert line.startswith("'mosque' never occurred")


def test_scores_are_explained(stored: str) -> None:
    search = ("search", "port", "--store", stored, "--explain")
    document = run(*search, "--json", "-k", "3", "--where", "id <> 'a.png'").document
    every = run("search", "port", "--store", stored, "--json").document["hits"]
    scores = [hit["score"] for hit in every]
    for hit in document["hits"]:
        below = sum(score < hit["score"] for score in scores)
        assert hit["score_percentile"] == 100 * below / len(IDS)
    explained = document["explain"]
    assert explained["rows"] == len(IDS)
    assert explained["mean"] == pytest.approx(sum(scores) / len(scores))
    assert explained["median"] == pytest.approx(sorted(scores)[2])
    best = (document["hits"][0]["score"] - explained["mean"]) / explained["standard_deviation"]
    assert explained["best_deviations"] == pytest.approx(best)
    *lines, last = run(*search).stdout.splitlines()
    assert [line.split()[2] for line in lines] == ["80.00%", "60.00%", "40.00%", "20.00%", "0.00%"]
    assert "5 rows" in last
    nothing = run(*search, "--where", "width > 999", "--json").document
    assert (nothing["hits"], nothing["explain"]["best_deviations"]) == ([], None)


def test_formats(stored: str, tmp_path: Path) -> None:
    search = ("search", "port", "--store", stored, "-k", 3)
    hits = run(*search, "--json").document["hits"]
    assert run(*search, "--format", "json").document["hits"] == hits
    lines = run(*search, "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("rank,id,score,uri,")
    assert [line.split(",")[1] for line in lines[1:]] == [hit["id"] for hit in hits]
    outputs = {}
    for suffix in ("json", "csv", "parquet", "html", "txt"):
        outputs[suffix] = tmp_path / f"hits.{suffix}"
        done = run(*search, "-o", outputs[suffix])
        assert (done.status, done.stdout) == (0, ""), done
    assert json.loads(outputs["json"].read_text())["hits"] == hits
    ids = pyarrow.parquet.read_table(outputs["parquet"])["id"].to_pylist()
    assert ids == [hit["id"] for hit in hits]
    assert outputs["csv"].read_text().splitlines() == lines
    assert outputs["html"].read_text().count("data:image/jpeg") == 3
    assert [line.split()[2] for line in outputs["txt"].read_text().splitlines()] == ids
    for mistake in (
        ("-o", "a.png"), ("--format", "csv", "-o", "a.json"), ("--format", "html"),
        ("--json", "--format", "csv"),
    ):  # fmt: skip
        assert run(*search, *mistake).status == 2
    assert "expected rows with coordinates" in run(*search, "--format", "geojson").error
    exported = tmp_path / "rows.csv"
    rows = run("export", "--store", stored, "-o", exported, "--where", "width > 1", "--json")
    assert rows.document["rows"] == len(exported.read_text().splitlines()) - 1 == 5
    assert "vector" not in exported.read_text()
