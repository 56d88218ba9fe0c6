"""Checks of settings; each raises `SettingError`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rsicd_embed.errors import SettingError


def one_of(config: Any, name: str, choices: Iterable[str]) -> None:
    """`config.name` is one of `choices`."""
    value, known = getattr(config, name), tuple(choices)
    if value not in known:
        raise SettingError(name, f"to be one of {', '.join(known)}, found {value!r}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Each is a number, `least` or more."""
    for name in names:
        if not least <= getattr(config, name) < math.inf:
            raise SettingError(name, f"≥ {least}, found {getattr(config, name)}")


def at_most(config: Any, most: int, *names: str) -> None:
    """Each is `most` or less."""
    for name in names:
        if getattr(config, name) > most:
            raise SettingError(name, f"≤ {most:,}, found {getattr(config, name):,}")


def above(config: Any, bound: float, *names: str) -> None:
    """Each is a number, more than `bound`."""
    for name in names:
        if not bound < getattr(config, name) < math.inf:
            raise SettingError(name, f"> {bound}, found {getattr(config, name)}")


def finite(config: Any, *names: str) -> None:
    """Each is a number, neither infinite nor NaN."""
    for name in names:
        if not math.isfinite(getattr(config, name)):
            raise SettingError(name, f"to be finite, found {getattr(config, name)}")


def fraction(config: Any, *names: str) -> None:
    """Each is in [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise SettingError(name, f"in [0, 1], found {getattr(config, name)}")


def below_one(config: Any, *names: str) -> None:
    """Each is in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise SettingError(name, f"in [0, 1), found {getattr(config, name)}")
