"""Files that look like pictures but are of formats that are not read."""

from __future__ import annotations

from collections.abc import Mapping

from rsicd_embed.images import SUFFIXES

# Suffixes of picture formats, by the extra that makes them readable; "" where there is none.
_FORMATS = {
    "heif": (".avif", ".avifs", ".heic", ".heif", ".hif"),
    "": (
        *(".jxl", ".jxr", ".jpf", ".jpx", ".jpm", ".j2c", ".jpc", ".mpo", ".jng", ".apng"),
        *(".tga", ".dib", ".pcx", ".pam", ".pbm", ".pfm", ".sgi", ".ras", ".xbm", ".xpm"),
        *(".ico", ".icns", ".psd", ".dds", ".exr", ".hdr", ".qoi", ".svg", ".eps"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef"),  # cameras
        *(".img", ".ecw", ".sid", ".ntf", ".nitf", ".bil", ".bip", ".bsq", ".vrt"),  # rasters
    ),
}
_EXTRAS = {suffix: extra for extra, suffixes in _FORMATS.items() for suffix in suffixes}


def is_unread(suffix: str) -> bool:
    """Whether files with this suffix, in lower case, are pictures that cannot be read."""
    return suffix in _EXTRAS and suffix not in SUFFIXES


def describe(unread: Mapping[str, int]) -> str:
    """Counts by suffix as text, the most frequent first.

    Example:
        >>> describe({".tga": 3, ".avif": 9})
        '9 .avif (install rsicd-embed[heif]), 3 .tga'
    """
    ordered = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix}{_remedy(suffix)}" for suffix, count in ordered)


def _remedy(suffix: str) -> str:
    extra = _EXTRAS.get(suffix)
    return f" (install rsicd-embed[{extra}])" if extra else ""
