"""Which of the libraries that a benchmark compares with are to run, and which are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rsicd_embed.errors import BenchError

NONE = "none"
_EXTRA = "'rsicd-embed[bench]'"


@dataclass(frozen=True)
class ReferenceChoice:
    """References to run, and why each of the others is not, by name."""

    chosen: tuple[str, ...]
    left_out: dict[str, str]


def choose(
    against: str | None,
    needs: Mapping[str, Sequence[str]],
    packages: Mapping[str, str] | None = None,
) -> ReferenceChoice:
    """What `--against` means: names with commas between, "none", or None for all that there are.

    Args:
        against: as it was given.
        needs: the modules that each reference needs.
        packages: what to install for some references, where it is not the extra `bench`.

    Raises:
        BenchError: one is unknown, or was asked for by name and lacks a library.
    """
    names = list(needs) if against is None else _names(against, needs)
    told = {
        name: f"needs {', '.join(missing)}: pip install {(packages or {}).get(name, _EXTRA)}"
        for name in names
        if (missing := [one for one in needs[name] if importlib.util.find_spec(one) is None])
    }
    if against is not None and told:
        raise BenchError("; ".join(f"reference {name} {why}" for name, why in told.items()))
    return ReferenceChoice(tuple(name for name in names if name not in told), told)


def _names(against: str, needs: Mapping[str, Sequence[str]]) -> list[str]:
    names = list(dict.fromkeys(one.strip() for one in against.split(",") if one.strip()))
    if names == [NONE]:
        return []
    unknown = [name for name in names if name not in needs]
    if unknown or not names:
        raise BenchError(
            f"expected references of {', '.join(needs)}, or {NONE}, found {', '.join(unknown)!r}"
        )
    return names
