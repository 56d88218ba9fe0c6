"""The models that `--model` knows by name, with facts about them; the data is in TOML files.

The package's own list is known_models.toml. A user's list, at `$RSICD_EMBED_MODELS` or otherwise
`$XDG_CONFIG_HOME/rsicd-embed/models.toml`, adds models and replaces those of the same name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from rsicd_embed.errors import ModelError
from rsicd_embed.files import expanded

Activation = Literal["quick_gelu", "gelu"]
"""The activation of a CLIP's transformers, which open_clip's state dicts leave out."""
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

VARIABLE = "RSICD_EMBED_MODELS"
_OURS = Path(__file__).with_suffix(".toml")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class PublishedFigure:
    """A figure that others published: a fraction, and where it is from."""

    value: float
    source: str


@dataclass(frozen=True)
class KnownModel:
    """A model and the facts that its publishers state; unknown ones are None or empty.

    Attributes:
        name: name for `--model`.
        source: Hugging Face id, local folder or file; None if it has to be downloaded by hand.
        file: path of the checkpoint in the repository or folder.
        revision: full id of a commit that has it.
        download: address of the file of a model that is not on the Hub.
        architecture: image tower and image size.
        activation: activation of its transformers, where the files do not give it.
        dim: length of a vector.
        licence: licence of the weights.
        trained_on: training data.
        seen: evaluation datasets of which images were used in training; None if unknown.
        published: figures by metric.
        card: page about the model.
        listed_in: file of the list.
    """

    name: str
    source: str | None = None
    file: str | None = None
    revision: str | None = None
    download: str | None = None
    architecture: str | None = None
    activation: Activation | None = None
    dim: int | None = None
    licence: str | None = None
    trained_on: tuple[str, ...] = ()
    seen: tuple[str, ...] | None = None
    published: Mapping[str, PublishedFigure] = field(default_factory=dict)
    card: str | None = None
    listed_in: str = ""

    @property
    def location(self) -> str:
        """The model as `--model` accepts it without the list: `SOURCE[@REVISION][:FILE]`.

        Raises:
            ModelError: the model has to be downloaded by hand.
        """
        if self.source is None:
            raise ModelError(
                f"expected a model on the Hugging Face Hub or in a folder, found {self.name}, "
                f"published at {self.download}; download it, and pass the file to --model"
            )
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.source}{revision}" + (f":{self.file}" if self.file else "")

    def saw(self, dataset: str) -> bool | None:
        """Whether images of a dataset were used in training; None if unknown.

        Example:
            >>> KnownModel("a", seen=("UCM", "NWPU-RESISC45")).saw("dataset_nwpu_resisc45")
            True
        """
        if self.seen is None:
            return None
        return any(f" {_words(name)} " in f" {_words(dataset)} " for name in self.seen)


def _words(name: str) -> str:
    """The letters and digits of a name in lower case, with a space between words."""
    return " ".join(re.findall(r"[a-z0-9]+", name.lower()))


def find(name: str) -> KnownModel | None:
    """The listed model of this name.

    Raises:
        ModelError: the user's list cannot be read.
    """
    return known_models().get(name) if _NAME.fullmatch(name) else None


def published_at(source: str, file: str | None) -> KnownModel | None:
    """The listed model of a repository or folder, and of a file in it."""
    models = known_models().values()
    return next((m for m in models if (m.source, m.file) == (source, file)), None)


def known_models() -> dict[str, KnownModel]:
    """All listed models by name.

    Raises:
        ModelError: the user's list cannot be read, or has a wrong field.
    """
    models, path = dict(_read(_OURS)), _user_list()
    if path is not None:
        models |= _read(path)
        for name in _read(path):
            _require_source(name, models, path)
    return models


def _require_source(name: str, models: Mapping[str, KnownModel], path: Path) -> None:
    """Raises ModelError if a model's source is a model whose source, at last, is the first one."""
    names, model = [name], models.get(name)
    while model and model.source and model.source != model.name:
        if model.source in names:
            raise ModelError(
                f"{path}: [{name}]: expected a Hugging Face id or a path as its source, found "
                f"{' → '.join([*names, model.source])}; see docs/models.md"
            )
        names.append(model.source)
        model = models.get(model.source)


def _user_list() -> Path | None:
    given = os.environ.get(VARIABLE)
    if given:
        return expanded(given)
    folder = expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    path = folder / "rsicd-embed" / "models.toml"
    return path if path.is_file() else None


@cache
def _read(path: Path) -> Mapping[str, KnownModel]:
    import tomllib  # only for models by name, not for the bundled one

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(
            f"expected a TOML list of models in {path}, found: {reason}; "
            f"repair it or unset {VARIABLE}"
        ) from error
    return {name: _model(path, name, table) for name, table in tables.items()}


# What each field of a table may be; `published` is checked on its own.
_TEXTS = ("source", "file", "revision", "download", "architecture", "licence", "card")
_LISTS = ("trained_on", "seen")


def _model(path: Path, name: str, table: object) -> KnownModel:
    """A model from its table.

    Raises:
        ModelError: naming the first wrong field.
    """

    def refuse(expected: str) -> ModelError:
        return ModelError(f"{path}: [{name}]: expected {expected}; see docs/models.md")

    if not _NAME.fullmatch(name):
        raise refuse("a name of lower-case letters, digits, dots and hyphens")
    if not isinstance(table, dict):
        raise refuse(f"a table, found {table!r}")
    names = {each.name for each in fields(KnownModel)} - {"name", "listed_in"}
    for key in table:
        if key not in names:
            raise refuse(f"one of {', '.join(sorted(names))}, found {key!r}")
    values: dict[str, Any] = dict(table)
    for key in (key for key in _TEXTS if key in table):
        if not isinstance(table[key], str) or not table[key]:
            raise refuse(f"{key} to be a text, found {table[key]!r}")
    for key in (key for key in _LISTS if key in table):
        items = table[key]
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise refuse(f"{key} to be a list of texts, found {items!r}")
        values[key] = tuple(items)
    if table.get("activation", ACTIVATIONS[0]) not in ACTIVATIONS:
        raise refuse(f"activation {' or '.join(ACTIVATIONS)}, found {table['activation']!r}")
    dim = table.get("dim", 1)
    if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
        raise refuse(f"dim to be a number ≥ 1, found {dim!r}")
    if name == "bundled" and path != _OURS:
        raise refuse("another name, as the bundled model cannot be replaced")
    if ("source" in table) == ("download" in table):
        raise refuse("either source or download")
    if table.get("source") == name != "bundled":
        raise refuse(f"source to be a Hugging Face id or a path, found {name!r}")
    if str(table.get("source", "")).startswith((".", "~", "/")):  # relative to the list
        values["source"] = str(path.parent / expanded(table["source"]))
    published = table.get("published", {})
    try:
        values["published"] = {
            metric: PublishedFigure(float(figure["value"]), str(figure["source"]))
            for metric, figure in published.items()
        }
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        raise refuse("published figures like { value = 0.3, source = 'URL' }") from None
    return KnownModel(name, **values, listed_in="" if path == _OURS else str(path))
