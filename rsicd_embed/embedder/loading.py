"""Loading of embedders by the names that `--model` accepts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol, cast

from rsicd_embed import plugins
from rsicd_embed.arguments import shown
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.backends import Backend, Precision
from rsicd_embed.embedder.clip.backends.engine_choice import engines
from rsicd_embed.embedder.clip.backends.towers import towers
from rsicd_embed.embedder.clip.config import Activation
from rsicd_embed.embedder.clip.embedder import ClipEmbedder
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.locate import local_directory, locate
from rsicd_embed.errors import ArgumentError, ModelError

CLIP = "clip"


class Load(Protocol):
    """Signature of the entry points in group `rsicd_embed.embedders`."""

    def __call__(self, argument: str, *, batch_size: int) -> Embedder:
        """Loads the embedder named `NAME:argument`."""
        ...


def load_embedder(
    model: str | Path | None = None,
    *,
    batch_size: int = 64,
    precision: Precision | None = None,
    backend: Backend | None = None,
    activation: Activation | None = None,
) -> Embedder:
    """Loads an embedder.

    Args:
        model: None or "bundled" for the bundled model; a directory in the Hugging Face layout of a
            CLIP or SigLIP, or in open_clip's; a checkpoint file of open_clip or OpenAI; a Hugging
            Face id, optionally with `@revision` and `:path/to/file.pt`; or `NAME:ARGUMENT` for the
            entry point NAME of group `rsicd_embed.embedders`.
        batch_size: number of images per batch, across all local devices.
        precision: compute dtype of a CLIP; None for bfloat16 on accelerators, and for a ResNet on a
            CPU with instructions for it, otherwise float32.
        backend: engine that runs a CLIP; None or "auto" for the fastest on this machine.
        activation: of the transformers, "quick_gelu" or "gelu", for a checkpoint file that does not
            specify it.

    Raises:
        ModelError: the model does not exist or is not a CLIP, the backend cannot run it, or its
            activation is unknown.
        WeightsError: the weights do not match the config.
        ArgumentError: `model` is neither a name nor a path.
    """
    if not (model is None or isinstance(model, str | os.PathLike)):
        raise ArgumentError(f"expected the name or directory of a model, found {shown(model)}")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ModelError(f"expected a batch size ≥ 1, found {batch_size!r}")
    name, argument = _entry_point(model)
    if name is None:
        return load_clip(
            argument,
            batch_size=batch_size,
            precision=precision,
            backend=backend,
            activation=activation,
        )
    options = {"precision": precision, "backend": backend, "activation": activation}
    given = [option for option, value in options.items() if value is not None]
    if given:
        option = given[0]
        raise ModelError(f"expected no {option} with {model}: only CLIP models accept one")
    load = cast(Load, plugins.load(plugins.EMBEDDERS, name))
    return load(str(argument), batch_size=batch_size)


def load_for_a_query(model: str | Path | None = None) -> Embedder:
    """Loads the embedder with the lowest start-up latency for a single query.

    For a CLIP this is the NumPy engine, which compiles nothing; importing JAX alone takes longer.
    """
    name, _ = _entry_point(model)
    return load_embedder(model, backend="numpy" if name is None else None)


def engine_for(model: str) -> str | None:
    """The engine that `--backend auto` tries first for a model; None for a plug-in's embedder.

    The precision is left out if it depends on the architecture, which no local `config.json` tells.
    """
    name, argument = _entry_point(model)
    if name is not None:
        return None
    transformer, resnet = next(engines()), next(engines(resnet=True))
    if transformer == resnet:
        return str(transformer)
    directory = local_directory(argument)
    try:
        shape = None if directory is None else parts.read_shape(directory)
    except ModelError:  # another layout, or damaged
        shape = None
    if shape is None:
        return transformer.backend
    return str(resnet if isinstance(shape.vision, ResNetConfig) else transformer)


def load_clip(
    model: str | Path | None = None,
    *,
    batch_size: int = 64,
    precision: Precision | None = None,
    backend: Backend | None = None,
    activation: Activation | None = None,
) -> ClipEmbedder:
    """Loads a CLIP model; see `load_embedder`."""
    located = locate(model, activation=activation)
    model_parts = parts.read(located)
    engine = towers(model_parts, backend or "auto", precision)
    return ClipEmbedder(
        model_parts,
        engine,
        name=located.name,
        batch_size=batch_size,
        directory=located.directory,
    )


def _entry_point(model: str | Path | None) -> tuple[str | None, str | Path | None]:
    """Splits a model's name into the entry point (None for the built-in CLIP) and its argument."""
    name, colon, argument = str(model).partition(":")
    if colon and name == CLIP:
        return None, argument
    if colon and name in plugins.names(plugins.EMBEDDERS):
        return name, argument
    return None, model
