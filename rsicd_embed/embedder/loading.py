"""From what `--model` takes to an embedder."""

from __future__ import annotations

from pathlib import Path

from rsicd_embed.embedder.clip import directory
from rsicd_embed.embedder.clip.compiled import keep_compiled_programs
from rsicd_embed.embedder.clip.devices import Precision
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError


def load_embedder(
    model: str | Path | None = None, *, batch_size: int = 64, precision: Precision | None = None
) -> ClipEmbedder:
    """Loads a CLIP.

    Args:
        model: None or "bundled" for the model in this package; a directory in the Hugging Face
            layout; or a Hugging Face id, with `@revision` if you like.
        batch_size: images embedded at once, over all local devices.
        precision: what is computed in; None for float32 on a CPU, bfloat16 elsewhere.

    Raises:
        ModelError: there is no such model, or it is not a CLIP.
        WeightsError: its weights do not fit its config.
    """
    if batch_size < 1:
        raise ModelError(f"expected a batch size ≥ 1, found {batch_size}")
    keep_compiled_programs()
    found = locate(model)
    return directory.load(
        found.directory, name=found.name, batch_size=batch_size, precision=precision
    )
