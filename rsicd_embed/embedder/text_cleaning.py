"""Cleaning of texts before tokenization."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Callable
from typing import Literal, get_args

from rsicd_embed.errors import ModelError

Cleaning = Literal["none", "lower", "whitespace", "canonicalize", "siglip", "lowercase"]
"""`lower`, `whitespace` and `canonicalize` are open_clip's, `siglip` is that of transformers'
SiglipTokenizer, and `lowercase` that of its Siglip2Tokenizer."""

_SPACE = re.compile(r"\s+")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def cleaner(cleaning: Cleaning) -> Callable[[str], str]:
    """Returns the function that cleans a text.

    Raises:
        ModelError: there is no such cleaning.
    """
    if cleaning not in get_args(Cleaning):
        raise ModelError(
            f"expected text_cleaning to be {', '.join(get_args(Cleaning))}, found {cleaning!r}"
        )
    return _CLEANERS[cleaning]


def _basic(text: str) -> str:
    from ftfy import fix_text  # 20 ms, and only open_clip's models need it

    return html.unescape(html.unescape(fix_text(text))).strip()


def _whitespace(text: str) -> str:
    return " ".join(_basic(text).split())


def _canonicalize(text: str) -> str:
    text = _basic(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(text.split())


def _siglip(text: str) -> str:
    return _SPACE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).strip()


_CLEANERS: dict[Cleaning, Callable[[str], str]] = {
    "none": lambda text: text,
    "lower": lambda text: _whitespace(text).lower(),
    "whitespace": _whitespace,
    "canonicalize": _canonicalize,
    "siglip": _siglip,
    "lowercase": lambda text: "".join(map(str.lower, text)),  # letter by letter: Σ is always σ
}
