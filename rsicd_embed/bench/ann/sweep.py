"""The settings that an index is searched with: those that are tried."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rsicd_embed.errors import BenchError

# What is tried, from the fastest to the most thorough: nodes of a graph kept in view; partitions
# looked at; and as many times k rows compared exactly.
LADDERS: Mapping[str, tuple[int, ...]] = {
    "efSearch": (20, 50, 100, 200, 400, 800),
    "nprobes": (5, 10, 20, 50, 100),
    "refine": (1, 4),
}
# The settings that the stores of a scheme are searched with; a URI takes them as options.
KNOBS: Mapping[str, tuple[str, ...]] = {"nmslib": ("efSearch",), "lancedb": ("nprobes", "refine")}


def ladders(given: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The ladders, with those that are given (`efSearch=20,50`) in place of the usual ones.

    Raises:
        BenchError: another name, or no numbers.

    Example:
        >>> ladders(["efSearch=20,50"])["efSearch"], ladders([])["refine"]
        ((20, 50), (1, 4))
    """
    found = dict(LADDERS)
    for text in given:
        name, _, values = text.partition("=")
        words = values.split(",")
        if name not in LADDERS or not all(one.isdigit() and int(one) for one in words):
            raise BenchError(
                f"expected settings to try such as efSearch=20,50 (of {', '.join(LADDERS)}), "
                f"found {text!r}"
            )
        found[name] = tuple(dict.fromkeys(int(one) for one in words))
    return found


def steps(knobs: Sequence[str], values: Mapping[str, Sequence[int]]) -> list[dict[str, int]]:
    """All combinations of the values of some settings; none of no settings.

    Example:
        >>> steps(["nprobes", "refine"], {"nprobes": [5, 9], "refine": [2]})
        [{'nprobes': 5, 'refine': 2}, {'nprobes': 9, 'refine': 2}]
    """
    if not knobs:
        return []
    combined = itertools.product(*(values[name] for name in knobs))
    return [dict(zip(knobs, one, strict=True)) for one in combined]


def apart(
    told: Mapping[str, Any], steps: Mapping[str, Sequence[Mapping[str, int]]], k: int
) -> list[dict[str, Any]]:
    """What was told of all settings at once, step by step, as it stands in a record.

    No search is the first one: stores have searched before with other settings.

    Args:
        told: of contenders that are called `NAME, STEP`; see `measure.searched`.
        steps: the settings of each contender.
        k: that was asked for.
    """
    found = []
    for at in range(max(map(len, steps.values()))):
        names = [name for name, some in steps.items() if at < len(some)]
        contenders = {name: dict(told["contenders"][f"{name}, {at}"]) for name in names}
        for one in contenders.values():
            del one["first_search_ns"]
        found.append(
            {
                "k": k,
                "settings": {name: dict(steps[name][at]) for name in names},
                "complete": told["complete"],
                "contenders": contenders,
                "overhead": told["overhead"],
            }
        )
    return found
