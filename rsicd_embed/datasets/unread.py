"""A report of files that look like pictures but are of formats that are not read."""

from __future__ import annotations

from collections.abc import Mapping

from rsicd_embed.images import PLUGIN_SUFFIXES


def describe(unread: Mapping[str, int]) -> str:
    """Counts by suffix as text, the most frequent first.

    Example:
        >>> describe({".psd": 9, ".tga": 3})
        '9 .psd, 3 .tga'
    """
    ordered = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}{_remedy(suffix)}" for suffix, count in ordered)


def _remedy(suffix: str) -> str:
    return " (install rsicd-embed[pictures])" if suffix in PLUGIN_SUFFIXES else ""
