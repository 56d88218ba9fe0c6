"""What `--model` takes → a directory with a checkpoint."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from rsicd_embed import plugins
from rsicd_embed.embedder import hub
from rsicd_embed.embedder.layout import CLIP, CheckpointLayout
from rsicd_embed.errors import ModelError

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# No repository is called like a file of a model.
_FILE = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors|msgpack|npz|onnx|json|zip)", re.IGNORECASE)


@dataclass(frozen=True)
class Located:
    """A checkpoint's directory, and the name by which it is found again."""

    directory: Path
    name: str


def locate(model: str | Path | None, layout: CheckpointLayout = CLIP) -> Located:
    """Finds a model: None or "bundled", a directory, or a Hugging Face id with `@revision`.

    Only what is written like an id, `owner/name`, is looked for on the Hub.

    Raises:
        ModelError: it is none of these, or cannot be fetched; directories of similar names and
            the model directory in a run's folder are pointed out.
    """
    if model is None or str(model) == BUNDLED:
        return Located(_BUNDLED_DIRECTORY, BUNDLED)
    text = str(model)
    if not text.strip():
        raise ModelError("expected a model, found an empty name; leave --model out for the bundled")
    path = Path(text).expanduser()
    if path.is_dir():
        _refuse_other_folder(path)
        return Located(path, str(path.resolve()))
    match = _HUB_ID.fullmatch(text)
    if path.exists() or match is None or _FILE.fullmatch(text):
        raise ModelError(
            f"expected a model directory or a Hugging Face id such as {layout.example}, "
            f"found {_description(text, path, layout)}"
        )
    try:
        return Located(hub.download(match["repo"], match["revision"], layout), text)
    except ModelError as error:
        raise ModelError(f"{error}{_suggestion(path)}") from error


def _refuse_other_folder(path: Path) -> None:
    """Folders that are easily taken for a model's.

    Raises:
        ModelError: it is one of them; the message says what to give instead.
    """
    if (path / "config.json").exists():
        return
    if (path / "run.json").is_file():
        best = path / "best"
        advice = f"give {best}" if best.is_dir() else "it has no best model yet: train on"
        raise ModelError(
            f"expected a model directory, found the folder of a training run: {path}; {advice}"
        )
    if (path / "manifest.json").is_file() or any(path.glob("*.lance")) or path.suffix == ".lance":
        raise ModelError(
            f"expected a model directory, found the folder of a store: {path}; "
            "give it to --store, and leave --model out for the model that made the store"
        )


def _description(text: str, path: Path, layout: CheckpointLayout) -> str:
    """What there is instead of a model, and what to do."""
    if path.exists():
        beside = (path.parent / layout.settings[0]).is_file()
        return f"a file: {text}" + (f"; give its folder, {path.parent}" if beside else "")
    scheme, colon, _ = text.partition(":")
    if colon and scheme in plugins.names(plugins.STORES):
        return (
            f"the URI of a store: {text}; give it to --store, and leave --model out for the "
            "model that made the store"
        )
    return f"no such directory: {text}{_suggestion(path)}"


def _suggestion(path: Path) -> str:
    """`; did you mean models/clip?`, if there are directories of such a name; else nothing."""
    missing = next((one for one in (path, *path.parents) if one.parent.is_dir()), path)
    try:
        names = [one.name for one in missing.parent.iterdir() if one.is_dir()]
    except OSError:
        return ""
    if missing.parent == path.parent == Path():
        names.append(BUNDLED)
    rest = path.relative_to(missing)
    near = [
        str(missing.with_name(name) / rest)
        for name in difflib.get_close_matches(missing.name, names)
        if name == BUNDLED or (missing.with_name(name) / rest).is_dir()
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""
