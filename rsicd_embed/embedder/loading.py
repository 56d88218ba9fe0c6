"""From what `--model` takes to an embedder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, cast

from rsicd_embed import plugins
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.embedder.clip import directory
from rsicd_embed.embedder.clip.compiled import keep_compiled_programs
from rsicd_embed.embedder.clip.devices import Precision
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError

CLIP = "clip"


class Load(Protocol):
    """What an entry point of group `rsicd_embed.embedders` refers to."""

    def __call__(self, argument: str, *, batch_size: int) -> Embedder:
        """The embedder that `NAME:argument` means."""
        ...


def load_embedder(
    model: str | Path | None = None, *, batch_size: int = 64, precision: Precision | None = None
) -> Embedder:
    """Loads an embedder.

    Args:
        model: None or "bundled" for the model in this package; a directory in the Hugging Face
            CLIP layout; a Hugging Face id, with `@revision` if you like; or `NAME:ARGUMENT` for an
            entry point NAME of group `rsicd_embed.embedders`.
        batch_size: images embedded at once, over all local devices.
        precision: what a CLIP computes in; None for float32 on a CPU, bfloat16 elsewhere.

    Raises:
        ModelError: there is no such model, or it is not a CLIP.
        WeightsError: its weights do not fit its config.
    """
    if batch_size < 1:
        raise ModelError(f"expected a batch size ≥ 1, found {batch_size}")
    name, colon, argument = str(model).partition(":")
    if colon and name == CLIP:
        return load_clip(argument, batch_size=batch_size, precision=precision)
    if colon and name in plugins.names(plugins.EMBEDDERS):
        if precision is not None:
            raise ModelError(f"expected no precision with {model}: only CLIPs take one")
        load = cast(Load, plugins.load(plugins.EMBEDDERS, name))
        return load(argument, batch_size=batch_size)
    return load_clip(model, batch_size=batch_size, precision=precision)


def load_clip(
    model: str | Path | None = None, *, batch_size: int = 64, precision: Precision | None = None
) -> ClipEmbedder:
    """Loads a CLIP; see `load_embedder`."""
    keep_compiled_programs()
    found = locate(model)
    return directory.load(
        found.directory, name=found.name, batch_size=batch_size, precision=precision
    )
