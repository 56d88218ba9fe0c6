"""Files that look like pictures but are of formats that are not read."""

from __future__ import annotations

from collections.abc import Mapping

from rsicd_embed.images import SUFFIXES

# Read where the extra `pictures` is installed.
_WITH_PLUGIN = frozenset({".avif", ".heic", ".heif", ".hif", ".jxl"})

_NEVER = frozenset(
    {
        *(".tga", ".jpf", ".jpx", ".jpm", ".j2c", ".jpc", ".mpo", ".jls", ".jxr", ".wdp", ".apng"),
        *(".psd", ".psb", ".ico", ".icns", ".svg", ".eps", ".pcx", ".dds", ".exr", ".hdr", ".qoi"),
        *(".sgi", ".ras", ".dib", ".xbm", ".xpm", ".pam", ".pbm", ".pfm", ".xcf", ".fits"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef"),  # cameras
        *(".img", ".ecw", ".sid", ".ntf", ".nitf", ".bil", ".bip", ".bsq", ".vrt"),  # rasters
    }
)

_UNREAD = (_WITH_PLUGIN | _NEVER) - SUFFIXES


def is_unread(suffix: str) -> bool:
    """Whether files with this suffix, in lower case, are pictures that cannot be read."""
    return suffix in _UNREAD


def describe(unread: Mapping[str, int]) -> str:
    """Counts by suffix as text, the most frequent first.

    Example:
        >>> describe({".tga": 3, ".avif": 9})
        '9 .avif (install rsicd-embed[pictures]), 3 .tga'
    """
    ordered = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}{_remedy(suffix)}" for suffix, count in ordered)


def _remedy(suffix: str) -> str:
    return " (install rsicd-embed[pictures])" if suffix in _WITH_PLUGIN else ""
