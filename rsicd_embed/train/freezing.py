"""Which parameters are left as they are. Loads no JAX.

A part is a name of `Clip`'s: image, text, image_projection, text_projection, logit_scale. A tower
with a number is its beginning: of a transformer its embeddings and that many blocks (text:6), of a
ResNet its stem and that many stages (image:2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rsicd_embed.errors import SettingError, TrainError

_TOWERS = ("image", "text")
_PARTS = (*_TOWERS, "image_projection", "text_projection", "logit_scale")
_REPEATED = ("blocks", "layers", "stages")  # what a tower is a sequence of
_AFTER = ("norm_post",)  # what follows it


@dataclass(frozen=True)
class Frozen:
    """A part, or the first `depth` blocks or stages of a tower with what comes before them."""

    part: str
    depth: int | None = None

    def has(self, name: str) -> bool:
        """Whether a parameter, such as image.blocks.0.up.kernel, belongs to it."""
        part, _, rest = name.partition(".")
        if part != self.part:
            return False
        if self.depth is None:
            return True
        module, _, place = rest.partition(".")
        if module in _REPEATED:
            return int(place.partition(".")[0]) < self.depth
        return module not in _AFTER


def parse(text: str) -> Frozen:
    """What a word of `step.freeze` means.

    Raises:
        SettingError: it means nothing.

    Example:
        >>> parse("text:6")
        Frozen(part='text', depth=6)
    """
    said = re.fullmatch(r"(\w+)(?::(\d+))?", text)
    if said is None or said[1] not in _PARTS or (said[2] and said[1] not in _TOWERS):
        raise SettingError(
            "freeze",
            f"to have {', '.join(_PARTS)}, or a tower's first blocks as in image:6, found {text!r}",
        )
    return Frozen(said[1], int(said[2]) if said[2] else None)


def frozen(names: Iterable[str], freeze: Sequence[str]) -> frozenset[str]:
    """Those of `names` that are not trained.

    Raises:
        TrainError: a tower has fewer blocks than are to be frozen, or nothing is left to train.
    """
    every = tuple(names)
    parts = [parse(text) for text in freeze]
    for one in parts:
        if one.depth is not None and one.depth > (there := depth(every, one.part)):
            raise TrainError(
                f"expected at most {there} blocks or stages of the {one.part} tower to freeze, "
                f"found {one.depth}"
            )
    found = frozenset(name for name in every if any(one.has(name) for one in parts))
    if len(found) == len(every):
        raise TrainError(f"expected something left to train, found all of it in freeze {freeze}")
    return found


def depth(names: Iterable[str], tower: str) -> int:
    """Number of blocks or stages."""
    pattern = re.compile(rf"{tower}\.(?:{'|'.join(_REPEATED)})\.(\d+)\.")
    return max((int(said[1]) + 1 for name in names if (said := pattern.match(name))), default=0)
