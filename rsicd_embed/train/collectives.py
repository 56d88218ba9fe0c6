"""What a compiled program sends between devices, read from its HLO text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import prod

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_ARRAY = r"\w+\[[^\]]*\](?:\{[^}]*\})?"  # element type, dimensions, layout
_TUPLE = r"\((?:[^()]|\([^()]*\))*\)"  # layouts have parentheses of their own: T(8,128)
_INSTRUCTION = re.compile(
    rf"\s*(?:ROOT )?%?[\w.-]+ = (?P<shape>{_ARRAY}|{_TUPLE}) "
    rf"(?P<kind>{'|'.join(KINDS)})(?:-done)?\("
)
_PART = re.compile(r"(\w+)\[([\d,<=]*)\]")


def collective_bytes(hlo: str) -> dict[str, int]:
    """Bytes that collective operations leave on each device, by their kind.

    That is the size of their results, each operation counted once: not what a link carries, which
    depends on the algorithm. An asynchronous pair counts at its end, where the result is.

    Args:
        hlo: text of a compiled program for one device, as `Compiled.as_text` gives it.

    Example:
        >>> collective_bytes("  %r.1 = bf16[8,4]{1,0:T(8,128)} all-reduce(%x), channel_id=1")
        {'all-reduce': 64}
    """
    found: dict[str, int] = {}
    for line in hlo.splitlines():
        if one := _INSTRUCTION.match(line):
            found[one["kind"]] = found.get(one["kind"], 0) + _bytes(_PART.findall(one["shape"]))
    return found


def _bytes(arrays: Iterable[tuple[str, str]]) -> int:
    """Size of arrays, each an element type (f32, bf16, s4, pred) and its dimensions."""
    total = 0
    for element, dimensions in arrays:
        width = re.search(r"\d+", element)
        bits = int(width[0]) if width else 8 if element == "pred" else 0
        sizes = [int(size) for size in re.findall(r"\d+", dimensions)]
        total += -(-prod(sizes) * bits // 8)
    return total
