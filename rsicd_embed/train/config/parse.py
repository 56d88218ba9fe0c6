"""Settings from TOML files, from presets and from `section.name=value`."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsicd_embed.errors import SettingError, TrainError
from rsicd_embed.train.config import TrainConfig

_PRESETS = Path(__file__).parents[1] / "presets"


def presets() -> dict[str, Path]:
    """Files of settings that come with the package, by name."""
    return {path.stem: path for path in sorted(_PRESETS.glob("*.toml"))}


def read(name: str | Path) -> dict[str, Any]:
    """The settings of a TOML file, or of a preset, by dotted name.

    Raises:
        TrainError: there is no such file or preset, or it is not TOML.
    """
    content = _content(name)
    content.pop("published", None)
    return _flat(content)


def published(name: str | Path) -> dict[str, float]:
    """The file's table `published`: what others reached with these settings; often empty.

    Raises:
        TrainError: see `read`.
    """
    found: dict[str, float] = _content(name).get("published", {})
    return found


def _content(name: str | Path) -> dict[str, Any]:
    path = Path(name) if Path(name).is_file() else presets().get(str(name))
    if path is None:
        raise TrainError(
            f"expected a TOML file or one of {', '.join(presets())}, found {str(name)!r}"
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainError(f"{path} cannot be read as TOML: {error}") from error


def assignment(text: str) -> tuple[str, Any]:
    """`optimizer.learning_rate=1e-5` → a name and a value; bare words are text.

    Raises:
        TrainError: it has no `=`.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise TrainError(f"expected NAME=VALUE, found {text!r}")
    try:
        return name.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def replaced(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """`config` with some settings, by dotted name, exchanged.

    Raises:
        TrainError: there is no such setting, or it takes no such value.
    """
    changed: TrainConfig = _replaced(config, settings, "")
    return changed


def flat(config: TrainConfig) -> dict[str, Any]:
    """Every setting by dotted name."""
    return _flat(dataclasses.asdict(config))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _replaced(config: Any, settings: Mapping[str, Any], prefix: str) -> Any:
    kinds = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        head, dot, rest = name.partition(".")
        if head not in kinds or bool(dot) != dataclasses.is_dataclass(kinds[head]):
            raise TrainError(_unknown(prefix + name))
        if dot:
            sections.setdefault(head, {})[rest] = value
        else:
            changes[head] = _converted(prefix + name, value, kinds[head])
    for head, some in sections.items():
        changes[head] = _replaced(getattr(config, head), some, f"{prefix}{head}.")
    try:
        return dataclasses.replace(config, **changes)
    except SettingError as error:  # a section does not know its own name
        raise SettingError(prefix + error.setting, error.problem) from error


def _unknown(name: str) -> str:
    known = list(flat(TrainConfig()))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"expected a setting such as {', '.join(near or known)}, found {name!r}"


def _converted(name: str, value: Any, kind: Any) -> Any:
    """`value` as `kind`: integers are fractions too, and lists tuples."""
    choices = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value == "none" and type(None) in choices:  # TOML has no word for it
        return None
    for one in choices:
        origin = typing.get_origin(one) or one
        if origin is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(one)[0]
            return tuple(_converted(name, item, inner) for item in value)
        if origin is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if (
            isinstance(origin, type)
            and isinstance(value, origin)
            and (isinstance(value, bool) == (origin is bool))
        ):
            return value
    expected = " or ".join(_words(one) for one in choices)
    raise SettingError(name, f"to be {expected}, found {value!r}")


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is tuple:
        return 'a list such as ["text", "image:2"]'
    names = {
        int: "an integer", float: "a number", str: "text", bool: "true or false",
        type(None): "none",
    }  # fmt: skip
    return names[kind]
