"""The command line: its main commands, usage errors, failures, and separate processes."""

from __future__ import annotations

import datetime as dt
import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rsicd_embed
from rsicd_embed.cli import base
from rsicd_embed.cli.eval import base as eval_base
from rsicd_embed.datasets import classes

from .conftest import picture
from .helpers import SCHEMES, run

pytestmark = pytest.mark.usefixtures("load_each_model_once")


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

    result = run("search", "a port", "--store", uri, "-k", 3, "--json").document
    assert (result["query"], result["model"], result["store"]) == ("a port", str(tiny_model), uri)
    assert [hit["rank"] for hit in result["hits"]] == [1, 2, 3]
    scores = [hit["score"] for hit in result["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert all(-1 <= score <= 1 for score in scores)
    assert set(result["hits"][0]) == {"rank", "id", "score", "uri", "sha256", "width", "height"}
    by_image = run("search", "--image", pictures / "c.jpg", "--store", uri, "--json").document
    assert by_image["query"] == str(pictures / "c.jpg")
    assert by_image["hits"][0]["id"] == "c.jpg"
    assert by_image["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(by_image["hits"]) == 5


# ------------------------------------------------------------------ failures and usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "--store", "exact:x"],
        ["search", "port", "--store", "exact:x", "-k", "0"],
        ["search", "port", "--store", "exact:x", "-k", "-1"],
        ["search", "port", "--store", "exact:x", "-k", "many"],
        ["search", "port"],
        ["ingest", "--store", "exact:x"],
        ["ingest", "."],
        ["ingest", ".", "--store", "exact:x", "--batch-size", "0"],
        ["info"],
        ["info", "--store", "exact:x", "--unknown"],
        ["unknown"],
        ["search", "port\udcff", "--store", "exact:x"],
        ["search", "port", "--store", "exact:x", "--store", "exact:y"],
        ["search", "port", "--store=exact:x", "-k", "3", "-k3"],
        ["search", "port", "--store", "exact:x", "--where", "true", "--where", "false"],
        ["info", "--store", "exact:x", "--store", "exact:x"],
        ["store", "tag", "name", "--store", "exact:x", "--store", "exact:y"],
        ["ingest", ".", "--store", "exact:x", "--model", "a", "--model", "b"],
        ["ingest", "", "--store", "exact:x"],
        ["ingest", "a.png", "", "--store", "exact:x"],
        ["search", "--image", "", "--store", "exact:x"],
        ["search", "a\0b", "--store", "exact:x"],
        ["search", "port", "--store", "exact:x", "-k", str(10**23)],
        ["ingest", ".", "--store", "exact:x", "--batch-size", str(10**23)],
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "a", "--where", "b", "--where", "c"], "--where takes one value, found 2"),
        (["ingest", ""], "expected a path, found an empty text"),
        (["search", "a", "-k", str(2**32)], "expected at most 4294967295"),
    ],
)
def test_usage_errors_name_the_argument(arguments: list[str], message: str) -> None:
    error = run(*arguments, "--store", "exact:x").stderr.splitlines()[-1]
    assert error.startswith("Error: ")
    assert message in error


def test_repeatable_arguments(stored: str, pictures: Path, tiny_model: Path) -> None:
    """Flags, repeatable options, and anything together with --help."""
    assert run("info", "--store", stored, "--json", "--json").status == 0
    find = ("find", "port", pictures / "a.png", "--model", tiny_model, "-k", 1)
    assert run(*find, "--patch", 32, "--patch", 36).status == 0
    assert run("info", "--store", "a", "--store", "b", "--help").status == 0


def test_default_prompt_is_that_of_the_library() -> None:
    assert eval_base.PROMPT == classes.PROMPT


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


def test_unexpected_errors_are_one_line(stored: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(rsicd_embed, "open_store", fail)
    outcome = run("search", "port", "--store", stored)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert outcome.stderr == "error: unexpected RuntimeError: two lines (--debug shows where)\n"


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), "error: a.png: No such file\n"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device\n"),
        (MemoryError("Unable to allocate 9 TiB"), "error: not enough memory (Unable to allocate"),
        (ValueError("x" * 9999), "error: unexpected ValueError: xxx"),
    ],
)
def test_system_errors_are_one_short_line(
    stored: str, monkeypatch: pytest.MonkeyPatch, failure: Exception, message: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(rsicd_embed, "open_store", fail)
    outcome = run("search", "port", "--store", stored)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith(message)
    assert outcome.stderr.count("\n") == 1
    assert len(outcome.stderr) < 300


def test_json_output_is_always_valid(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    base.print_json({"a": (math.nan, "ü\n"), "bad": "\udcff", 5: dt.date(2020, 1, 2)})
    out, err = capfdbinary.readouterr()
    assert json.loads(out) == {"a": [None, "ü\n"], "bad": "\udcff", "5": "2020-01-02"}
    assert "ü".encode() in out
    assert (out.count(b"\n"), err) == (1, b"")


# ------------------------------------------------------------------ in separate processes


HEAVY = ("jax", "flax", "lancedb", "pyarrow", "nmslib", "transformers", "torch", "datafusion")


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False,
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


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        (
            ("sql", "SELECT count(*) FROM images"),
            ("jax", "tokenizers", "rsicd_embed.embedder.loading"),
        ),
        (("sql", "SELECT max(similarity('a beach')) FROM images"), ("jax", "flax")),
        # Arrow imports pandas, if it is installed, to convert arrays of NumPy.
        (("search", "a beach"), ("jax", "flax", "pandas", "datafusion", "pyarrow.dataset")),
    ],
)
def test_only_needed_modules_are_imported(
    stored: str, command: tuple[str, str], absent: tuple[str, ...]
) -> None:
    main = "import sys; from rsicd_embed.cli import main; main(standalone_mode=False)"
    options = ("--store", stored, "--json")
    result = python(f"{main}; print('modules', *sys.modules)", *command, *options)
    assert (result.returncode, result.stderr) == (0, "")
    document, _, last = result.stdout.rstrip("\n").rpartition("\n")
    results = json.loads(document)["hits" if command[0] == "search" else "rows"]
    assert len(results) == (5 if command[0] == "search" else 1)
    modules = last.split()
    assert modules[0] == "modules"
    assert [name for name in absent if name in modules] == []


def test_the_installed_command(
    stored: str, pictures: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """With an ASCII terminal, and with warnings as errors."""
    main = "from rsicd_embed.cli import main; main(prog_name='rsicd-embed')"
    picture(6).save(pictures / "ü.png")
    outcome = python(
        main, "ingest", str(pictures), "--store", stored, "--model", str(tiny_model), "--json",
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["embedded"] == 1
    outcome = python(
        main, "search", "--image", str(pictures / "ü.png"), "--store", stored, "--json",
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert json.loads(outcome.stdout)["hits"][0]["id"] == "ü.png"
    outcome = python(main, "search", "port", "--store", stored, PYTHONIOENCODING="ascii")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert "\\xfc.png\n" in outcome.stdout
    failed = python(main, "info", "--store", f"exact:{tmp_path / 'ä'}", PYTHONIOENCODING="ascii")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: no store at exact:")
    assert failed.stderr.count("\n") == 1
