"""What a setting must be, told in one line when it is not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rsicd_embed.errors import TrainError


def one_of(config: Any, name: str, choices: Iterable[str]) -> None:
    """`config.name` is one of `choices`."""
    value, known = getattr(config, name), tuple(choices)
    if value not in known:
        raise TrainError(f"expected {name} to be one of {', '.join(known)}, found {value!r}")


def at_least(config: Any, least: float, *names: str) -> None:
    """Each is `least` or more."""
    for name in names:
        if not getattr(config, name) >= least:
            raise TrainError(f"expected {name} ≥ {least}, found {getattr(config, name)}")


def above(config: Any, bound: float, *names: str) -> None:
    """Each is more than `bound`."""
    for name in names:
        if not getattr(config, name) > bound:
            raise TrainError(f"expected {name} > {bound}, found {getattr(config, name)}")


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
