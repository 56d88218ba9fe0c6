"""What a setting must be, told in one line when it is not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rsicd_embed.errors import TrainError


def one_of(config: Any, name: str, choices: Iterable[str]) -> None:
    """`config.name` is one of `choices`."""
    value, known = getattr(config, name), tuple(choices)
    if value not in known:
        raise TrainError(f"expected {name} to be one of {', '.join(known)}, found {value!r}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Each is a number, `least` or more."""
    for name in names:
        if not least <= getattr(config, name) < math.inf:
            raise TrainError(f"expected {name} ≥ {least}, found {getattr(config, name)}")


def at_most(config: Any, most: int, *names: str) -> None:
    """Each is `most` or less."""
    for name in names:
        if getattr(config, name) > most:
            raise TrainError(f"expected {name} ≤ {most:,}, found {getattr(config, name):,}")


def above(config: Any, bound: float, *names: str) -> None:
    """Each is a number, more than `bound`."""
    for name in names:
        if not bound < getattr(config, name) < math.inf:
            raise TrainError(f"expected {name} > {bound}, found {getattr(config, name)}")


def finite(config: Any, *names: str) -> None:
    """Each is a number, neither infinite nor NaN."""
    for name in names:
        if not math.isfinite(getattr(config, name)):
            raise TrainError(f"expected {name} to be finite, found {getattr(config, name)}")


def fraction(config: Any, *names: str) -> None:
    """Each is in [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise TrainError(f"expected {name} in [0, 1], found {getattr(config, name)}")


def below_one(config: Any, *names: str) -> None:
    """Each is in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise TrainError(f"expected {name} in [0, 1), found {getattr(config, name)}")
