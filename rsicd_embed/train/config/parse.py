"""Settings from TOML files, presets and `section.name=value` assignments; validated by pydantic."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from rsicd_embed.errors import SettingError, TrainError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance as Config
    from annotated_types import Interval
    from pydantic import TypeAdapter

C = TypeVar("C", bound="Config")

Settings: TypeAlias = dict[str, object]
"""Values by dotted name, such as optimizer.warmup."""

_PRESETS = Path(__file__).parents[1] / "presets"
_TYPE_NAMES = {
    int: "an integer", float: "a number", str: "text", bool: "true or false", NoneType: "none",
    tuple[str, ...]: 'a list such as ["text", "image:2"]',
    tuple[float, float]: "[least, most] within (0, 1]",
}  # fmt: skip
_OUT_OF_RANGE = (
    "greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number",
)  # fmt: skip


def presets() -> dict[str, Path]:
    """Bundled settings files by name."""
    return {path.stem: path for path in sorted(_PRESETS.glob("*.toml"))}


def read(name: str | Path) -> Settings:
    """Reads the settings of a TOML file or preset."""
    content = _content(name)
    content.pop("published", None)
    return _flat(content)


def published(name: str | Path) -> dict[str, float]:
    """Reads the `published` table of a TOML file or preset: metrics reported for its settings."""
    metrics: dict[str, float] = _content(name).get("published", {})
    return metrics


def assignment(text: str) -> tuple[str, object]:
    """Splits `optimizer.learning_rate=1e-5` into name and value; bare words are text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise TrainError(f"expected NAME=VALUE, found {text!r}")
    try:
        return name.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def flat(config: Config) -> Settings:
    """All settings of a `TrainConfig`, or another dataclass of settings, by dotted name."""
    return _flat(dataclasses.asdict(config))


def replaced(config: C, settings: Mapping[str, object]) -> C:
    """Returns `config` with some settings replaced; "none" means None where that is allowed.

    Raises:
        TrainError: a setting is unknown.
        SettingError: a value is invalid.
    """
    known = flat(config)
    sections: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            raise TrainError(
                f"expected a setting such as {', '.join(near or known)}, found {name!r}"
            )
        section, _, setting = name.rpartition(".")
        sections.setdefault(section, {})[setting] = _validated(type(config), name, value)
    changes = sections.pop("", {})
    for section, values in sections.items():
        changes[section] = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **changes)


def _validated(config: type[Config], name: str, value: object) -> object:
    """The value of a setting with its exact type: lists become tuples, and integers numbers."""
    from pydantic import ValidationError

    annotation = _annotation(config, name)
    if value == "none" and NoneType in get_args(annotation):  # TOML has no null
        return None
    exact = tuple(value) if isinstance(value, list) else value
    try:
        return _validator(config, name).validate_python(exact, strict=True)
    except ValidationError as error:
        expected = _expected(annotation, error.errors(include_url=False)[0]["type"])
        raise SettingError(name, f"{expected}, found {value!r}") from None


@functools.cache
def _validator(config: type[Config], name: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(_annotation(config, name), config={"allow_inf_nan": False})


def _annotation(config: type[Config], name: str) -> Any:
    """The type of a setting, with its bounds."""
    annotation: Any = config
    for part in name.split("."):
        annotation = get_type_hints(annotation, include_extras=True)[part]
    return annotation


def _expected(annotation: Any, violation: str) -> str:
    """The text after "expected NAME" in the error for a wrong value."""
    args = get_args(annotation)
    names = []
    for option in args if NoneType in args else (annotation,):
        kind, *bounds = get_args(option) if get_origin(option) is Annotated else (option,)
        if get_origin(kind) is Literal:
            return f"to be one of {', '.join(get_args(kind))}"
        if violation in _OUT_OF_RANGE:
            return _range(*bounds) if bounds else "to be finite"
        names.append(_TYPE_NAMES[kind])
    return f"to be {' or '.join(names)}"


def _range(bounds: Interval) -> str:
    """`> 0`, `≥ 1` or `in [0, 1]`."""
    low: Any = bounds.gt if bounds.ge is None else bounds.ge
    high: Any = bounds.lt if bounds.le is None else bounds.le
    if high is None:
        return f"{'>' if bounds.ge is None else '≥'} {low}"
    start, end = "(" if bounds.ge is None else "[", ")" if bounds.le is None else "]"
    return f"in {start}{low}, {high:,}{end}"


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


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Settings:
    settings: Settings = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            settings |= _flat(value, f"{prefix}{key}.")
        else:
            settings[prefix + key] = value
    return settings
