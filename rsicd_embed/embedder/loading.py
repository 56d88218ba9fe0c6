"""From what `--model` takes to an embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, cast

from rsicd_embed import plugins
from rsicd_embed.arguments import shown
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.backends import Backend, Precision
from rsicd_embed.embedder.clip.backends.towers import towers
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ArgumentError, ModelError

CLIP = "clip"


class Load(Protocol):
    """What an entry point of group `rsicd_embed.embedders` refers to."""

    def __call__(self, argument: str, *, batch_size: int) -> Embedder:
        """The embedder that `NAME:argument` means."""
        ...


def load_embedder(
    model: str | Path | None = None,
    *,
    batch_size: int = 64,
    precision: Precision | None = None,
    backend: Backend | None = None,
) -> Embedder:
    """Loads an embedder.

    Args:
        model: None or "bundled" for the model in this package; a directory in the Hugging Face
            CLIP layout; a Hugging Face id, with `@revision` if you like; or `NAME:ARGUMENT` for an
            entry point NAME of group `rsicd_embed.embedders`.
        batch_size: images embedded at once, over all local devices.
        precision: what a CLIP computes in; None for float32 on a CPU, bfloat16 elsewhere.
        backend: what a CLIP runs on; None for jax.

    Raises:
        ModelError: there is no such model, it is not a CLIP, or the backend cannot run it.
        WeightsError: its weights do not fit its config.
        ArgumentError: `model` is neither a name nor a path.
    """
    if not (model is None or isinstance(model, str | os.PathLike)):
        raise ArgumentError(f"expected the name or directory of a model, found {shown(model)}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ModelError(f"expected a batch size ≥ 1, found {batch_size!r}")
    name, argument = _entry_point(model)
    if name is None:
        return load_clip(argument, batch_size=batch_size, precision=precision, backend=backend)
    if precision is not None or backend is not None:
        option = "precision" if precision is not None else "backend"
        raise ModelError(f"expected no {option} with {model}: only CLIPs take one")
    load = cast(Load, plugins.load(plugins.EMBEDDERS, name))
    return load(str(argument), batch_size=batch_size)


def load_for_a_query(model: str | Path | None = None) -> Embedder:
    """The embedder that has embedded one text or image soonest, its loading included.

    For a CLIP that is NumPy's: it compiles nothing, and JAX alone takes longer to import.
    """
    name, _ = _entry_point(model)
    return load_embedder(model, backend="numpy" if name is None else None)


def load_clip(
    model: str | Path | None = None,
    *,
    batch_size: int = 64,
    precision: Precision | None = None,
    backend: Backend | None = None,
) -> ClipEmbedder:
    """Loads a CLIP; see `load_embedder`."""
    found = locate(model)
    read = parts.read(found.directory)
    engine = towers(read, backend or "jax", precision)
    return ClipEmbedder(
        read, engine, name=found.name, batch_size=batch_size, directory=found.directory
    )


def _entry_point(model: str | Path | None) -> tuple[str | None, str | Path | None]:
    """The entry point, None for the built-in CLIP, and what it is given."""
    name, colon, argument = str(model).partition(":")
    if colon and name == CLIP:
        return None, argument
    if colon and name in plugins.names(plugins.EMBEDDERS):
        return name, argument
    return None, model
