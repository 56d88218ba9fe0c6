"""Damage to the files of a store, as by a failing disk, an interrupted copy, or a user."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Damage:
    """Files with changed content; None for deleted ones."""

    kind: str
    changed: Mapping[str, bytes | None]

    def __str__(self) -> str:
        return f"{self.kind} of {', '.join(self.changed)}"


def damage(files: Files, seed: int) -> Damage:
    """Random damage that changes at least one byte, reproducible by its seed."""
    chance = random.Random(seed)
    while True:
        # Choose a group first, so that groups of many files do not dominate.
        groups = sorted({_group(name) for name in files})
        group = chance.choice(groups)
        name = chance.choice([name for name in sorted(files) if _group(name) == group])
        kind = chance.choice([*_CHANGES, "loss", "swap", "copy"])
        if kind == "loss":
            return Damage(kind, {name: None})
        if kind in ("swap", "copy"):
            other = chance.choice(sorted(files))
            siblings = [name for name in sorted(files) if _group(name) == group]
            other = chance.choice(siblings) if chance.random() < 0.5 else other
            changed = {name: files[other]}
            if kind == "swap":
                changed[other] = files[name]
        else:
            changed = {name: _CHANGES[kind](files[name], chance)}
        if any(files[path] != content for path, content in changed.items()):
            return Damage(kind, changed)


def _group(name: str) -> str:
    """Folder, first word and suffix of a name: `rows-0123.arrow` → `/rows.arrow`."""
    folder, _, file = name.rpartition("/")
    word, dash, _ = file.partition("-")
    return f"{folder}/{word if dash and word.isalpha() else ''}.{file.rpartition('.')[2]}"


def _flip(content: bytes, chance: random.Random, most: int = 1) -> bytes:
    raw = bytearray(content)
    for _ in range(chance.randint(1, most) if raw else 0):
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    return bytes(raw)


def _garble(content: bytes, chance: random.Random) -> bytes:
    start, length = _block(content, chance)
    return content[:start] + chance.randbytes(length) + content[start + length :]


def _zero(content: bytes, chance: random.Random) -> bytes:
    start, length = _block(content, chance)
    return content[:start] + bytes(length) + content[start + length :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    start, length = _block(content, chance)
    return content[:start] + content[start + length :]


def _block(content: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(chance.choice((1, 4, 16, 64, 512, 4096)), len(content) - start)


_CHANGES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "bit flip": _flip,
    "bit flips": lambda content, chance: _flip(content, chance, 16),
    "garbled block": _garble,
    "zeroed block": _zero,
    "lost block": _cut,
    "truncation": lambda content, chance: content[: chance.randrange(len(content) + 1)],
    "appended bytes": lambda content, chance: content + chance.randbytes(chance.randint(1, 64)),
    "doubled content": lambda content, _: content + content,
    "zeroes": lambda content, _: bytes(len(content)),
    "nothing": lambda *_: b"",
}
