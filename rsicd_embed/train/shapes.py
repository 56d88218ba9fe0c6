"""Model shapes that can be trained from scratch: two small ones, and those of OpenAI's CLIP."""

from __future__ import annotations

from typing import Literal, TypeAlias

from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig

ModelShape: TypeAlias = Literal["tiny", "small", "vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336"]


def _shape(
    vision: TowerConfig, text: TowerConfig, dim: int, size: int, patch: int, vocabulary: int
) -> ClipConfig:
    context = 77 if vocabulary == _OPENAI else 32
    return ClipConfig(vision, text, dim, size, patch, vocabulary, context, vocabulary - 1)


# The small shapes learn their vocabulary from the captions.
_LEARNT, _OPENAI = 4096, 49408
_TINY, _SMALL = TowerConfig(64, 2, 2, 256), TowerConfig(256, 6, 4, 1024)
_SMALL_TEXT = TowerConfig(256, 2, 4, 1024)
_BASE, _BASE_TEXT = TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048)
_LARGE, _LARGE_TEXT = TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072)

# The vit shapes: Radford et al. 2021, table 19 (arXiv:2103.00020).
SHAPES: dict[str, ClipConfig] = {
    "tiny": _shape(_TINY, _SMALL_TEXT, 64, 32, 8, _LEARNT),
    "small": _shape(_SMALL, _SMALL_TEXT, 256, 128, 16, _LEARNT),
    "vit-b-32": _shape(_BASE, _BASE_TEXT, 512, 224, 32, _OPENAI),
    "vit-b-16": _shape(_BASE, _BASE_TEXT, 512, 224, 16, _OPENAI),
    "vit-l-14": _shape(_LARGE, _LARGE_TEXT, 768, 224, 14, _OPENAI),
    "vit-l-14-336": _shape(_LARGE, _LARGE_TEXT, 768, 336, 14, _OPENAI),
}
PUBLISHED_SHAPES = tuple(name for name in SHAPES if name.startswith("vit-"))
