"""Embedders behind one interface, and building blocks for embedder plug-ins.

`load_embedder` loads an embedder and `Embedder` is its interface. examples/embedder_plugin.py is a
complete plug-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsicd_embed.plugins import lazy_exports

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import (
        Embedder,
        KnowsItsWords,
        UnfamiliarWord,
        read_pixels,
        require_images,
        require_texts,
        word_warnings,
    )
    from rsicd_embed.embedder.clip.backends import Backend, Precision
    from rsicd_embed.embedder.loading import load_embedder
    from rsicd_embed.images import ImageLike, read_rgb
    from rsicd_embed.records import Fingerprint
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "rsicd_embed.embedder.base": (
                "Embedder",
                "KnowsItsWords",
                "UnfamiliarWord",
                "read_pixels",
                "require_images",
                "require_texts",
                "word_warnings",
            ),
            "rsicd_embed.embedder.clip.backends": ("Backend", "Precision"),
            "rsicd_embed.embedder.loading": ("load_embedder",),
            "rsicd_embed.images": ("ImageLike", "read_rgb"),
            "rsicd_embed.records": ("Fingerprint",),
        },
    )

__all__ = [
    "Backend",
    "Embedder",
    "Fingerprint",
    "ImageLike",
    "KnowsItsWords",
    "Precision",
    "UnfamiliarWord",
    "load_embedder",
    "read_pixels",
    "read_rgb",
    "require_images",
    "require_texts",
    "word_warnings",
]
