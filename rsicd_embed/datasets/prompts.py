"""Prompts of class names and query texts, alone or as ensembles whose vectors are averaged.

`prompts.toml` lists the ensembles.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from rsicd_embed.datasets.classes import PROMPT
from rsicd_embed.errors import DatasetError

CATEGORY = "{category}"
_FILE = Path(__file__).with_name("prompts.toml")


@cache
def ensembles() -> dict[str, tuple[str, ...]]:
    """Templates by name of the ensemble."""
    listed = tomllib.loads(_FILE.read_text("utf-8"))
    return {name: tuple(templates) for name, templates in listed.items()}


def prompt_templates(name: str | None) -> tuple[str, ...]:
    """The templates of an ensemble, or a template itself; CLIP-rsicd's prompt for None.

    Raises:
        DatasetError: it is neither.

    Example:
        >>> prompt_templates("a map of {category}")
        ('a map of {category}',)
    """
    if name is None:
        return (PROMPT,)
    if name in ensembles():
        return ensembles()[name]
    if CATEGORY not in name:
        raise DatasetError(
            f"expected prompts named {', '.join(ensembles())}, or a template with {CATEGORY}, "
            f"found {name!r}"
        )
    return (name,)
