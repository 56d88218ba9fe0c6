"""What `--model` takes → a directory with a checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rsicd_embed.embedder import hub
from rsicd_embed.errors import ModelError

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Located:
    """A checkpoint's directory, and the name by which it is found again."""

    directory: Path
    name: str


def locate(model: str | Path | None, layout: hub.Layout = hub.CLIP) -> Located:
    """Finds a model: None or "bundled", a directory, or a Hugging Face id with `@revision`.

    Raises:
        ModelError: it is none of these, or cannot be fetched.
    """
    if model is None or str(model) == BUNDLED:
        return Located(_BUNDLED_DIRECTORY, BUNDLED)
    if not str(model).strip():
        raise ModelError("expected a model, found an empty name; leave --model out for the bundled")
    path = Path(model).expanduser()
    if path.is_dir():
        return Located(path, str(path.resolve()))
    match = _HUB_ID.fullmatch(str(model))
    if path.exists() or match is None:
        found = "a file" if path.exists() else "no such directory"
        raise ModelError(
            f"expected a model directory or a Hugging Face id such as "
            f"{layout.example}, found {found}: {model}"
        )
    return Located(hub.download(match["repo"], match["revision"], layout), str(model))
