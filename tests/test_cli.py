"""The command line: what it prints where, its JSON, its exit statuses."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import rsicd_embed
from rsicd_embed.cli import base, progress
from rsicd_embed.cli.search import _short
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import open_store

from .conftest import picture
from .helpers import SCHEMES, rows, run

IDS = ["a.png", "b.png", "c.jpg", "d.tif", "sub/e.png"]

pytestmark = pytest.mark.usefixtures("load_each_model_once")


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"exact:{tmp_path / 'store'}"


@pytest.fixture
def stored(uri: str, pictures: Path, tiny_model: Path) -> str:
    """A store with the five pictures."""
    assert run("ingest", pictures, "--store", uri, "--model", tiny_model).status == 0
    return uri


# ------------------------------------------------------------------ ingest


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ingest_search_info(scheme: str, pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    uri = f"{scheme}:{tmp_path / 'store'}"
    ingest = ["ingest", pictures, "--store", uri, "--model", tiny_model, "--json"]
    first = run(*ingest)
    assert first.status == 0
    assert set(first.document) >= {
        "embedded", "unchanged", "removed", "skipped", "seconds", "images_per_s",
    }  # fmt: skip
    assert (first.document["embedded"], first.document["unchanged"]) == (5, 0)
    assert first.document["seconds"] > 0
    assert first.document["images_per_s"] > 0
    second = run(*ingest).document
    assert (second["embedded"], second["unchanged"], second["removed"]) == (0, 5, 0)
    assert (second["skipped"], second["images_per_s"]) == ([], 0)

    info = run("info", "--store", uri, "--json").document
    assert (info["rows"], info["dim"], info["model"]) == (5, 64, str(tiny_model))
    assert set(info) >= {"fingerprint", "index", "ann_recall"}
    with rsicd_embed.open_store(uri) as store:
        assert info["fingerprint"] == store.provenance.fingerprint

    found = run("search", "a port", "--store", uri, "-k", 3, "--json").document
    assert (found["query"], found["model"], found["store"]) == ("a port", str(tiny_model), uri)
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)
    assert set(found["hits"][0]) == {"rank", "id", "score", "uri", "sha256", "width", "height"}
    by_image = run("search", "--image", pictures / "c.jpg", "--store", uri, "--json").document
    assert by_image["query"] == str(pictures / "c.jpg")
    assert by_image["hits"][0]["id"] == "c.jpg"
    assert by_image["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(by_image["hits"]) == 5


def test_skipped_images_are_listed_and_the_run_succeeds(
    uri: str, pictures: Path, tiny_model: Path
) -> None:
    (pictures / "b.png").write_text("no picture")
    ingest = ("ingest", pictures, "--store", uri, "--model", tiny_model)
    outcome = run(*ingest, "--json")
    assert (outcome.status, outcome.document["embedded"]) == (0, 4)
    (skipped,) = outcome.document["skipped"]
    assert skipped["uri"] == str(pictures / "b.png")
    assert skipped["reason"].startswith("not a picture")
    assert outcome.stderr == f"skipped {skipped['uri']}: {skipped['reason']}\n"
    plain = run(*ingest)
    assert plain.stdout.startswith("0 embedded, 0 updated, 4 unchanged, 0 removed, 1 skipped in ")
    assert plain.stdout.endswith(f"; 4 rows in {uri}\n")
    assert plain.stderr == outcome.stderr


def test_strict_fails_in_one_line_and_keeps_what_was_embedded(
    uri: str, pictures: Path, tiny_model: Path
) -> None:
    (pictures / "b.png").write_text("no picture")
    outcome = run("ingest", pictures, "--store", uri, "--model", tiny_model, "--strict", "--json")
    assert outcome.error.startswith(f"error: {pictures / 'b.png'}: not a picture")
    assert sorted(rows(uri)) == ["a.png"]


def test_prune(stored: str, pictures: Path, tiny_model: Path) -> None:
    (pictures / "b.png").unlink()
    ingest = ("ingest", pictures, "--store", stored, "--model", tiny_model, "--json")
    assert run(*ingest).document["removed"] == 0
    assert run(*ingest, "--prune").document["removed"] == 1
    assert sorted(rows(stored)) == ["a.png", "c.jpg", "d.tif", "sub/e.png"]


def test_several_sources_and_small_batches(
    uri: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    picture(8).save(tmp_path / "z.png")
    outcome = run(
        "ingest", pictures, tmp_path / "z.png", "--store", uri, "--model", tiny_model,
        "--batch-size", 1, "--json",
    )  # fmt: skip
    assert outcome.document["embedded"] == 6
    assert sorted(rows(uri)) == [*IDS, "z.png"]


def test_an_rsicd_like_folder_keeps_its_captions(
    uri: str, pictures: Path, tiny_model: Path
) -> None:
    entry = {"filename": "a.png", "split": "test", "sentences": [{"raw": "a port ."}]}
    (pictures / "dataset_x.json").write_text(json.dumps({"images": [entry]}))
    run("ingest", pictures, "--store", uri, "--model", tiny_model)
    (hit,) = run("search", "port", "--store", uri, "--json").document["hits"]
    assert (hit["captions"], hit["split"], hit["label"]) == (["a port ."], "test", None)


# ------------------------------------------------------------------ search


def test_attributes_in_json(uri: str, pictures: Path, tiny_model: Path) -> None:
    """NaN and infinity are null, times are text, the rest keeps its type."""
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


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(stored: str) -> None:
    outcome = run("search", "boats " * 60, "--store", stored, "--json")
    assert outcome.status == 0
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("warning: 1 of 1 texts are longer than the model's context")
    assert len(outcome.document["hits"]) == 5


def test_lists_in_a_line(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    row = {"path": "a.png", "bbox": [7.5, -60, 15.25, 0], "captions": ["the first", "a second"]}
    (pictures / "m.jsonl").write_text(json.dumps(row) + "\n")
    store = f"exact:{tmp_path / 'store'}"
    run("ingest", pictures / "m.jsonl", "--store", store, "--model", tiny_model)
    (line,) = run("search", "port", "--store", store).stdout.splitlines()
    assert line.endswith("a.png  bbox=[7.5, -60, 15.25, 0]  captions=the first")


def test_profile_names_the_slowest_stage(pictures: Path, tiny_model: Path, tmp_path: Path) -> None:
    store = f"exact:{tmp_path / 'store'}"
    ingest = ("ingest", pictures, "--store", store, "--model", tiny_model, "--json", "--profile")
    outcome = run(*ingest)
    stages = outcome.document["stages"]
    assert list(stages) == ["read", "decode", "resize", "embed", "write", "index"]
    assert 0 < sum(stages.values()) < 10 * outcome.document["seconds"]
    lines = outcome.stderr.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == list(stages)
    assert lines[-1].startswith("limited by ")
    assert "read" in run(*ingest).document["stages"]  # nothing to embed


def test_search_uses_the_model_of_the_store(
    stored: str, tiny_model: Path, other_model: Path
) -> None:
    own = run("search", "port", "--store", stored, "--json").document
    assert own == run("search", "port", "--store", stored, "--json", "--model", tiny_model).document
    refused = run("search", "port", "--store", stored, "--json", "--model", other_model).error
    assert f"holds vectors of model '{tiny_model}'" in refused
    assert f"pass --model {tiny_model}" in refused


def test_ingest_refuses_another_model(
    stored: str, pictures: Path, tiny_model: Path, other_model: Path
) -> None:
    before = rows(stored)
    outcome = run("ingest", pictures, "--store", stored, "--model", other_model)
    assert f"holds vectors of model '{tiny_model}'" in outcome.error
    assert rows(stored) == before


def test_a_model_that_has_moved(stored: str, tiny_model: Path, tmp_path: Path) -> None:
    with rsicd_embed.open_store(stored) as store:
        made_by = store.provenance
    gone = Provenance(str(tmp_path / "gone"), made_by.fingerprint, made_by.dim)
    uri = f"exact:{tmp_path / 'moved'}"
    open_store(uri, gone).close()
    error = run("search", "port", "--store", uri).error
    assert "say where with --model" in error
    assert str(tmp_path / "gone") in error
    assert run("search", "port", "--store", uri, "--model", tiny_model).status == 0


def test_names_that_would_break_a_line_are_escaped(
    uri: str, pictures: Path, tiny_model: Path
) -> None:
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


def test_short_hits() -> None:
    assert _short("x" * 61) == "x" * 59 + "…"
    assert [_short(one) for one in ([], ["a", "b"], 0.123456789, 5)] == ["", "a", "0.12346", "5"]


# ------------------------------------------------------------------ failures and usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--store", "exact:x"],
        ["search", "port", "--image", "a.png", "--store", "exact:x"],
        ["search", "port", "--store", "exact:x", "-k", "0"],
        ["search", "port", "--store", "exact:x", "-k", "-1"],
        ["search", "port", "--store", "exact:x", "-k", "many"],
        ["search", "port"],
        ["search", "port", "twice", "--store", "exact:x"],
        ["ingest", "--store", "exact:x"],
        ["ingest", "."],
        ["ingest", ".", "--store", "exact:x", "--batch-size", "0"],
        ["info"],
        ["info", "--store", "exact:x", "--unknown"],
        ["unknown"],
        ["search", "port\udcff", "--store", "exact:x"],
    ],
)
def test_wrong_usage_is_status_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(*arguments)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("Usage: ")
    assert "\nError: " in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_and_version() -> None:
    for command in ([], ["ingest"], ["search"], ["info"], ["train"]):
        outcome = run(*command, "--help")
        assert (outcome.status, outcome.stderr) == (0, "")
        assert outcome.stdout.startswith("Usage: ")
    assert "--debug" in run("search", "-h").stdout
    assert run("--version").stdout.split()[-1] == "0.1.0"


def test_a_traceback_only_with_debug(tmp_path: Path) -> None:
    info = ("info", "--store", f"exact:{tmp_path / 'absent'}")
    assert run(*info).error.startswith("error: no store at exact:")
    for outcome in (run(*info, "--debug"), run(*info, "--json", "--debug")):
        assert (outcome.status, outcome.stdout) == (1, "")
        assert outcome.stderr.startswith("Traceback (most recent call last):")
        assert outcome.stderr.splitlines()[-1].startswith("error: no store at exact:")


def test_what_was_not_foreseen_is_told_in_one_line(
    stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(rsicd_embed, "open_store", fail)
    outcome = run("search", "port", "--store", stored)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert outcome.stderr == "error: unexpected RuntimeError: two lines (--debug shows where)\n"


def test_interruption_says_how_to_go_on(
    uri: str, pictures: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = rsicd_embed.load_embedder(tiny_model, batch_size=2)
    embed, calls = embedder.embed_pixels, []

    def interrupt(pixels: np.ndarray) -> np.ndarray:
        calls.append(len(pixels))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(pixels)

    ingest = (
        "ingest", pictures, "--store", uri, "--model", tiny_model, "--batch-size", 2, "--json",
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(embedder, "embed_pixels", interrupt)
        outcome = run(*ingest)
    assert (outcome.status, outcome.stdout) == (130, "")
    assert outcome.stderr == "interrupted; run the same command again to go on\n"
    assert sorted(rows(uri)) == IDS[:2]
    again = run(*ingest).document
    assert (again["embedded"], again["unchanged"]) == (3, 2)


def test_json_is_valid_whatever_is_in_it(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    base.print_json({"a": (math.nan, "ü\n"), "bad": "\udcff", 5: dt.date(2020, 1, 2)})
    out, err = capfdbinary.readouterr()
    assert json.loads(out) == {"a": [None, "ü\n"], "bad": "\udcff", "5": "2020-01-02"}
    assert "ü".encode() in out
    assert (out.count(b"\n"), err) == (1, b"")


# ------------------------------------------------------------------ progress


def test_progress_in_a_log_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with progress.image_progress("ingest", 400) as advance:
        for _ in range(100):
            now += 0.25
            advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "ingest: 40/400, 4.0 images/s, ETA 90 s",
        "ingest: 80/400, 4.0 images/s, ETA 80 s",
    ]


def test_progress_on_a_terminal_is_a_bar_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    with progress.image_progress("ingest", 4) as advance:
        for _ in range(4):
            advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "ingest" in err
    assert "4/4" in err


# ------------------------------------------------------------------ in processes of their own

HEAVY = ("jax", "flax", "lancedb", "pyarrow", "nmslib", "transformers", "torch", "datafusion")


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=os.environ | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "import rsicd_embed",
        "import rsicd_embed.cli",
        "from rsicd_embed.cli import main; main(['--help'], standalone_mode=False)",
        "from rsicd_embed.cli import main; main(['train', '--help'], standalone_mode=False)",
    ],
)
def test_help_imports_nothing_heavy(code: str) -> None:
    result = python(f"import sys; {code}; print('modules', *sys.modules)")
    assert result.returncode == 0, result.stderr
    modules = result.stdout.splitlines()[-1].split()
    assert modules[0] == "modules"
    assert "rsicd_embed" in modules
    assert [name for name in HEAVY if name in modules] == []


def test_the_installed_command(
    stored: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Whatever the terminal can show, and with warnings as errors."""
    main = "from rsicd_embed.cli import main; main(prog_name='rsicd-embed')"
    picture(6).save(pictures / "ü.png")
    found = python(
        main, "ingest", str(pictures), "--store", stored, "--model", str(tiny_model), "--json",
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["embedded"] == 1
    found = python(
        main, "search", "--image", str(pictures / "ü.png"), "--store", stored, "--json",
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout)["hits"][0]["id"] == "ü.png"
    found = python(main, "search", "port", "--store", stored, PYTHONIOENCODING="ascii")
    assert (found.returncode, found.stderr) == (0, "")
    assert "\\xfc.png\n" in found.stdout
    failed = python(main, "info", "--store", f"exact:{tmp_path / 'ä'}", PYTHONIOENCODING="ascii")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: no store at exact:")
    assert failed.stderr.count("\n") == 1
