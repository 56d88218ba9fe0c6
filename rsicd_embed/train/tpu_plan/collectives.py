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
_COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) (?:\(.*)?\{$")
_BODY = re.compile(r" while\(.*\bbody=%?(?P<name>[\w.-]+)")
_CALLED = re.compile(
    r"\b(?:to_apply|calls|condition|true_computation|false_computation|branch_computations)="
    r"(?P<names>%?[\w.-]+|\{[^}]*\})"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(?P<count>\d+)"\}')
_PART = re.compile(r"(\w+)\[([\d,<=]*)\]")


def collective_bytes(hlo: str) -> dict[str, int]:
    """Bytes that collective operations leave on each device, by their kind.

    That is the size of their results: not what a link carries, which depends on the algorithm. An
    asynchronous pair counts at its end, where the result is. What a loop does counts as often as
    the compiler knows that it runs, else once.

    Args:
        hlo: text of a compiled program for one device, as `Compiled.as_text` gives it.

    Example:
        >>> collective_bytes("  %r.1 = bf16[8,4]{1,0:T(8,128)} all-reduce(%x), channel_id=1")
        {'all-reduce': 64}
    """
    entry, computations = _computations(hlo)
    found: dict[str, int] = {}

    def add(name: str, times: int) -> None:
        for line in computations.get(name, ()):
            if one := _INSTRUCTION.match(line):
                size = times * _bytes(_PART.findall(one["shape"]))
                found[one["kind"]] = found.get(one["kind"], 0) + size
            if body := _BODY.search(line):
                trips = _TRIPS.search(line)
                add(body["name"], times * (int(trips["count"]) if trips else 1))
            elif one is None:  # what a collective applies, to add numbers up, sends nothing
                for called in _CALLED.finditer(line):
                    for each in re.findall(r"[\w.-]+", called["names"]):
                        add(each, times)

    add(entry, 1)
    return found


def _computations(hlo: str) -> tuple[str, dict[str, list[str]]]:
    """Name of the one that a program starts with, and the lines of each."""
    name = entry = ""
    found: dict[str, list[str]] = {name: []}
    for line in hlo.splitlines():
        if said := _COMPUTATION.match(line):
            name = said["name"]
            found[name] = []
            entry = name if said["entry"] else entry
        else:
            found[name].append(line)
    return entry, found


def _bytes(arrays: Iterable[tuple[str, str]]) -> int:
    """Size of arrays, each an element type (f32, bf16, s4, pred) and its dimensions."""
    total = 0
    for element, dimensions in arrays:
        width = re.search(r"\d+", element)
        bits = int(width[0]) if width else 8 if element == "pred" else 0
        sizes = [int(size) for size in re.findall(r"\d+", dimensions)]
        total += -(-prod(sizes) * bits // 8)
    return total
