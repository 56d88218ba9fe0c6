"""Prompts of class names and query texts, alone or as ensembles whose vectors are averaged."""

from __future__ import annotations

from rsicd_embed.datasets.classes import PROMPT
from rsicd_embed.errors import DatasetError

CATEGORY = "{category}"
ENSEMBLES: dict[str, tuple[str, ...]] = {
    "none": (CATEGORY,),
    "photograph": (PROMPT,),
    "aerial": (
        "an aerial photograph of {category}",
        "a satellite image of {category}",
        "an aerial view of {category}",
        "a remote sensing image of {category}",
        "{category}",
    ),
}


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
    if name in ENSEMBLES:
        return ENSEMBLES[name]
    if CATEGORY not in name:
        raise DatasetError(
            f"expected prompts named {', '.join(ENSEMBLES)}, or a template with {CATEGORY}, "
            f"found {name!r}"
        )
    return (name,)
