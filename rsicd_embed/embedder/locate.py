"""Locates the checkpoint that `--model` names: bundled, a directory, a file, or on the Hub."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsicd_embed import plugins
from rsicd_embed.embedder import known_models
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.embedder.clip.config import ACTIVATIONS, Activation
from rsicd_embed.embedder.hub import download, fetch
from rsicd_embed.embedder.layout import CLIP, OPEN_CLIP, CheckpointLayout, is_checkpoint
from rsicd_embed.errors import ModelError
from rsicd_embed.files import expanded, read_json

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"
_HUB_ID = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<file>[^:?]+))?")
_ACTIVATION = re.compile(r"(?P<model>.+)\?activation=(?P<activation>\w+)")
# Repositories are not named like model files.
_FILE = re.compile(r".*\.(pt|pth|bin|ckpt|safetensors|msgpack|npz|onnx|json|zip)", re.IGNORECASE)


@dataclass(frozen=True)
class Located:
    """A checkpoint, and the name under which it can be located again.

    Attributes:
        directory: its folder.
        name: as `--model` accepts it.
        file: name of a checkpoint file without a config that describes it; None if the directory
            has a layout of `embedder.layout`.
        activation: activation of the transformers, given by the user or the list of known models;
            None if neither gives it.
    """

    directory: Path
    name: str
    file: str | None = None
    activation: Activation | None = None


def local_directory(model: str | Path | None) -> Path | None:
    """The folder of the bundled model, or of a model given by its path; None for others."""
    match = _ACTIVATION.fullmatch(str(model))
    name = match["model"] if match else str(model)
    if model is None or name == BUNDLED:
        return _BUNDLED_DIRECTORY
    path = Path(name).expanduser()
    return path if path.is_dir() else None


def locate(
    model: str | Path | None,
    layout: CheckpointLayout = CLIP,
    *,
    activation: Activation | None = None,
) -> Located:
    """Locates a model, and downloads it if necessary.

    Args:
        model: None or "bundled", a directory, a checkpoint file, a name that `known_models` lists,
            or a Hugging Face id `owner/name`, optionally with `@revision` and `:path/to/file.pt`.
            Only ids are looked up on the Hub. `?activation=gelu` at the end is the same as
            `activation`.
        layout: the files of the checkpoint.
        activation: that of the model's transformers, for checkpoints that do not specify it.

    Raises:
        ModelError: the model does not exist or cannot be downloaded, or there are several. The
            message suggests directories with similar names, and the model inside the folder of a
            training run.
    """
    match = _ACTIVATION.fullmatch(str(model))
    if match:
        model = match["model"]
        activation = _agreed(activation, match["activation"], "the model's name")
    if activation not in (None, *ACTIVATIONS):
        raise ModelError(
            f"expected an activation among {', '.join(ACTIVATIONS)}, found {activation!r}"
        )
    suffix = f"?activation={activation}" if activation else ""
    if model is None or str(model) == BUNDLED:
        return Located(_BUNDLED_DIRECTORY, BUNDLED + suffix, None, activation)
    text = str(model)
    if not text.strip():
        raise ModelError("expected a model, found an empty name; omit --model for the bundled one")
    path = expanded(text)
    if path.is_dir():
        _refuse_other_folder(path)
        file = _only_checkpoint(path) if layout.kind == CLIP.kind else None
        return Located(path, str(path.resolve()) + suffix, file, activation)
    if known := known_models.find(text):
        agreed = _agreed(activation, known.activation, f"the list of models for {text}")
        return replace(locate(known.location, layout, activation=agreed), name=text)
    folder, colon, inside = text.rpartition(":")
    if colon and layout.kind == CLIP.kind and (expanded(folder) / inside).is_file():
        path = expanded(folder) / inside
    described = path.name in weight_files.FILES and (path.parent / layout.settings[0]).is_file()
    if path.is_file() and is_checkpoint(path.name) and layout.kind == CLIP.kind and not described:
        return Located(path.parent, str(path.resolve()) + suffix, path.name, activation)
    hub = _HUB_ID.fullmatch(text)
    if path.exists() or hub is None or (_FILE.fullmatch(text) and not hub["file"]):
        raise ModelError(
            f"expected a model directory or a Hugging Face id such as {layout.example}, "
            f"found {_description(text, path, layout)}"
        )
    if hub["file"]:
        known = known_models.published_at(hub["repo"], hub["file"])
        listed = known.activation if known else None
        activation = _agreed(activation, listed, "the list of models for this file")
        local = fetch(hub["repo"], hub["revision"], hub["file"])
        return Located(local.parent, text + suffix, local.name, activation)
    others = (OPEN_CLIP,) if layout.kind == CLIP.kind else ()
    try:
        directory = download(hub["repo"], hub["revision"], layout, *others)
    except ModelError as error:
        raise ModelError(f"{error}{_suggestion(path)}") from error
    return Located(directory, text + suffix, None, activation)


def _agreed(given: str | None, stated: str | None, source: str) -> Any:
    """Whichever activation is not None.

    Raises:
        ModelError: both are given, and differ.
    """
    if None not in (given, stated) and given != stated:
        raise ModelError(f"expected activation {stated}, as in {source}, found {given}")
    return given or stated


def _only_checkpoint(folder: Path) -> str | None:
    """The checkpoint file of a folder without a config; None if the folder has a layout.

    Raises:
        ModelError: there are several such files; the message lists them.
    """
    config = folder / CLIP.settings[0]
    if (folder / OPEN_CLIP.settings[0]).is_file() or (
        config.is_file() and read_json(config).get("model_type")
    ):
        return None
    names = sorted(path.name for path in folder.iterdir() if is_checkpoint(path.name))
    if not config.is_file():  # those of a Hugging Face layout are incomplete without it
        names = [name for name in names if name not in weight_files.FILES]
    if len(names) > 1:
        listed = ", ".join(str(folder / name) for name in names)
        raise ModelError(
            f"expected one checkpoint in {folder}, found several; pass one of {listed}"
        )
    return names[0] if names else None


def _refuse_other_folder(path: Path) -> None:
    """Recognises folders that are easily mistaken for a model's.

    Raises:
        ModelError: the folder is a training run or a store; the message suggests what to pass.
    """
    if (path / "config.json").exists():
        return
    if (path / "run.json").is_file():
        best = path / "best"
        advice = f"pass {best}" if best.is_dir() else "it has no best model yet: continue training"
        raise ModelError(
            f"expected a model directory, found the folder of a training run: {path}; {advice}"
        )
    if (path / "manifest.json").is_file() or any(path.glob("*.lance")) or path.suffix == ".lance":
        raise ModelError(
            f"expected a model directory, found the folder of a store: {path}; "
            "pass it to --store, and omit --model to use the store's model"
        )


def _description(text: str, path: Path, layout: CheckpointLayout) -> str:
    """Describes what was found instead of a model, with advice."""
    if path.exists():
        beside = (path.parent / layout.settings[0]).is_file()
        return f"a file: {text}" + (f"; pass its folder, {path.parent}" if beside else "")
    scheme, colon, _ = text.partition(":")
    if colon and scheme in plugins.names(plugins.STORES):
        return (
            f"the URI of a store: {text}; pass it to --store, and omit --model to use the "
            "store's model"
        )
    return f"no such directory: {text}{_suggestion(path)}"


def _suggestion(path: Path) -> str:
    """Suggests similar directories and listed models: `; did you mean models/clip?`, or nothing."""
    missing = next((part for part in (path, *path.parents) if part.parent.is_dir()), path)
    try:
        names = [folder.name for folder in missing.parent.iterdir() if folder.is_dir()]
    except OSError:
        return ""
    if missing.parent == path.parent == Path():
        names += known_models.known_models()
    rest = path.relative_to(missing)
    near = [
        str(missing.with_name(name) / rest)
        for name in difflib.get_close_matches(missing.name, names)
        if name in known_models.known_models() or (missing.with_name(name) / rest).is_dir()
    ]
    return f"; did you mean {' or '.join(near)}?" if near else ""
