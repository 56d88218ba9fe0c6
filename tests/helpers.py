"""What several test files share: counting embedders, stores read back, and the command line."""

from __future__ import annotations

import dataclasses
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

import rsicd_embed
from rsicd_embed.cli import main
from rsicd_embed.embedder.base import Embedder

SCHEMES = ("exact", "nmslib", "lancedb")


class Counting:
    """An embedder that counts the images it embeds, and does as it is told before each batch."""

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
        """Images embedded since this was last asked."""
        taken, self.embedded = self.embedded, 0
        return taken


def rows(uri: str) -> dict[str, dict[str, Any]]:
    """The rows of a store by id."""
    with rsicd_embed.open_store(uri) as store:
        return {row["id"]: row for row in store.scan().read_all().to_pylist()}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command did."""

    status: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        assert self.stdout.endswith("\n")
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        """The one line of a failure."""
        assert (self.status, self.stdout) == (1, ""), self
        assert "Traceback" not in self.stderr
        lines = self.stderr.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert "unexpected" not in lines[0], lines[0]
        return lines[0]


def run(*arguments: str | Path) -> Outcome:
    """`rsicd-embed ARGUMENTS` in this process."""
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        traceback.print_exception(result.exception)
        raise AssertionError(f"{arguments} let an exception through") from result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


def cached(load: Callable[..., Any]) -> Callable[..., Any]:
    """`load_embedder` that loads a model once, and gives it the batch size that is asked for."""
    models: dict[Any, Any] = {}

    def load_once(
        model: Any = None, *, batch_size: int = 64, precision: Any = None, backend: Any = None
    ) -> Any:
        assert precision is None
        assert backend is None
        key = str(model)
        if key not in models:
            models[key] = load(model)
        models[key].batch_size = batch_size
        return models[key]

    return load_once
