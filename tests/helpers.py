"""Helpers shared by test files: counting embedders, rows, and the command line."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image

import rsicd_embed
from rsicd_embed.cli import main
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.indexing import Summary
from rsicd_embed.records import Provenance
from rsicd_embed.stores.base import open_store
from rsicd_embed.testing.stores import MADE_BY, batch, stored, unit

SCHEMES = ("exact", "nmslib", "lancedb")

# Longer than any test waits for another process, even on a machine with much other work.
PATIENCE_S = 600.0

# The ids of the fixture `pictures`.
IDS = ["a.png", "b.png", "c.jpg", "d.tif", "sub/e.png"]


class Counting:
    """Counts the images that an embedder embeds, and calls `before` ahead of each batch."""

    def __init__(self, inner: Embedder, batch_size: int = 2) -> None:
        self._inner = inner
        self.name, self.dim, self.fingerprint = inner.name, inner.dim, inner.fingerprint
        self.batch_size = batch_size
        self.preprocess, self.embed_texts = inner.preprocess, inner.embed_texts
        self.embed_images = inner.embed_images
        self.embedded = 0
        self.before: Callable[[], None] = lambda: None

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        self.before()
        self.embedded += len(pixels)
        return self._inner.embed_pixels(pixels)

    def taken(self) -> int:
        """Returns the number of images embedded since the last call."""
        count, self.embedded = self.embedded, 0
        return count


def rows(uri: str) -> dict[str, dict[str, Any]]:
    """Returns the rows of a store by id."""
    with rsicd_embed.open_store(uri) as store:
        return {row["id"]: row for row in store.scan().read_all().to_pylist()}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Returns the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def manifest(path: Path, *entries: dict[str, Any]) -> Path:
    """Writes a JSON Lines manifest with an entry per image."""
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def ingest(embedder: Counting, uri: str, sources: Path | Sequence[Path], **options: Any) -> Summary:
    """Brings a store up to date with files, folders and manifests."""
    paths = [sources] if isinstance(sources, Path) else sources
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        return rsicd_embed.ingest(rsicd_embed.open_sources(paths), embedder, store, **options)


def counts(summary: Summary) -> tuple[int, int, int, int, int]:
    """Returns the counts (embedded, updated, unchanged, removed, skipped)."""
    return (
        summary.embedded,
        summary.updated,
        summary.unchanged,
        summary.removed,
        len(summary.skipped),
    )


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Exit status and output of a command."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        assert self.stdout.endswith("\n")
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The error line of a failed command."""
        assert (self.status, self.stdout) == (1, ""), self
        assert "Traceback" not in self.stderr
        lines = self.stderr.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert "unexpected" not in lines[0], lines[0]
        return lines[0]


def overridden(
    arguments: Sequence[str | Path], *options: str | Path, repeatable: Collection[str] = ()
) -> list[str | Path]:
    """Replaces options of a command by those of the same name; each option has a value."""
    names = {str(option) for option in options if str(option).startswith("-")} - set(repeatable)
    unchanged = [
        argument
        for previous, argument in zip(["", *arguments], arguments, strict=False)
        if str(argument) not in names and str(previous) not in names
    ]
    return [*unchanged, *options]


def run(*arguments: str | Path) -> Outcome:
    """Runs `rsicd-embed ARGUMENTS` in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        traceback.print_exception(result.exception)
        raise AssertionError(f"{arguments} raised an unexpected exception") from result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


# Rows with columns of all types and unusual ids.
ROWS = batch(
    ["it's", '"', "a\nb", "木/é.jpg", "", "x" * 3000, "%_"],
    unit(7, seed=3),
    uri=["/a", None, "/c", "/d", "/e", "/f", "/g"],
    sha256=["0" * 64, *[None] * 6],
    width=pa.array([224, None, 3, 4, 5, 6, 7], pa.int32()),
    label=["port", None, "", "it's", "x" * 100_000, "é", "f"],
    captions=[["a", "b"], None, [], [None], ["\n"], ["x"], ["y"]],
    at=pa.array([dt.datetime(2020, 1, 1), *[None] * 6], pa.timestamp("us", "UTC")),
    share=pa.array([0.1, -0.0, None, 1e-300, np.inf, 2, 3]),
    box=pa.array([[1.0, 2.0, 3.0, 4.0], *[None] * 6], pa.list_(pa.float64())),
    geo=[{"lon": 1.5, "name": "x"}, None, {"lon": None, "name": None}, None, None, None, None],
    flag=pa.array([True, False, *[None] * 5]),
    nothing=pa.nulls(7, pa.int16()),
    raw=pa.array([b"\x00\xff", *[None] * 6]),
)


def filled(uri: str, rows: pa.RecordBatch = ROWS, made_by: Provenance = MADE_BY) -> str:
    """Creates a store with these rows."""
    with open_store(uri, made_by) as store:
        store.upsert([rows])
    return uri


def content(uri: str) -> tuple[Any, ...]:
    """Returns the whole content of a store, with vectors as bytes."""
    with open_store(uri) as store:
        return store.provenance, store.schema.to_string(), stored(store)


def exported(file: Path, rows: pa.RecordBatch = ROWS, made_by: Provenance = MADE_BY) -> Path:
    """Writes a row file with these rows."""
    with TemporaryDirectory() as folder:
        uri = filled(f"exact:{folder}/store", rows, made_by)
        assert run("export", "--store", uri, "-o", file).status == 0
    return file


def import_file(file: Path, uri: str, *options: str) -> Any:
    """Imports a row file and returns the printed summary."""
    return run("import", file, "--store", uri, "--json", *options).document


def until(look: Callable[[], Any]) -> Any:
    """Polls `look` until it returns a true value."""
    end = time.monotonic() + PATIENCE_S
    while not (value := look()):
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)
    return value


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Returns a folder that the first test process to need it builds, for all of them.

    Args:
        factory: knows the folder of this run.
        name: of the folder to build.
        build: creates the folder at a path; tests must not change its files.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / f"{name}.lock"):
        if not (shared / name).exists():
            build(shared / f"{name}.partial")
            (shared / f"{name}.partial").rename(shared / name)
    return shared / name


def cached(load: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `load_embedder` so that a model is loaded once, and again when its files change.

    Only the batch size may change.
    """
    models: dict[Any, Any] = {}

    def load_once(
        model: Any = None, *, batch_size: int = 64, precision: Any = None, backend: Any = None
    ) -> Any:
        assert precision is None
        assert backend is None
        folder = Path(str(model))
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        key = (str(model), *(file.stat().st_mtime_ns for file in files))
        if key not in models:
            models[key] = load(model)
        models[key].batch_size = batch_size
        return models[key]

    return load_once


def runs_well(code: str, *arguments: object) -> None:
    """Runs a Python program in a new process; it must succeed and print nothing on stderr."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
