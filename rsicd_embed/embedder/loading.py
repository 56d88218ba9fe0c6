"""From what `--model` takes to an embedder: the bundled model, a directory, or a Hub id."""

from __future__ import annotations

import re
from pathlib import Path

from rsicd_embed.embedder import hub
from rsicd_embed.embedder.clip import directory
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.errors import ModelError

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def load_embedder(model: str | Path | None = None, *, batch_size: int = 64) -> ClipEmbedder:
    """Loads a CLIP.

    Args:
        model: None or "bundled" for the model in this package; a directory in the Hugging Face
            layout; or a Hugging Face id, with `@revision` if you like.
        batch_size: images embedded at once.

    Raises:
        ModelError: there is no such model, or it is not a CLIP.
        WeightsError: its weights do not fit its config.
    """
    if batch_size < 1:
        raise ModelError(f"expected a batch size ≥ 1, found {batch_size}")
    if model is None or str(model) == BUNDLED:
        return directory.load(_BUNDLED_DIRECTORY, name=BUNDLED, batch_size=batch_size)
    path = Path(model).expanduser()
    if path.is_dir():
        return directory.load(path, name=str(path.resolve()), batch_size=batch_size)
    match = _HUB_ID.fullmatch(str(model))
    if path.exists() or match is None:
        found = "a file" if path.exists() else "no such directory"
        raise ModelError(
            f"expected a model directory or a Hugging Face id such as "
            f"openai/clip-vit-base-patch32, found {found}: {model}"
        )
    local = hub.download(match["repo"], match["revision"])
    return directory.load(local, name=str(model), batch_size=batch_size)
