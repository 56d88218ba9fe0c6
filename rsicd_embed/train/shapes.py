"""Model shapes that can be trained from scratch: two small ones, and those of OpenAI's CLIP."""

from __future__ import annotations

from typing import Literal, TypeAlias

from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig

ModelShape: TypeAlias = Literal["tiny", "small", "vit-b-32", "vit-b-16", "vit-l-14", "vit-l-14-336"]


def _small(
    width: int, layers: int, heads: int, image_size: int, patch: int, dim: int
) -> ClipConfig:
    # Its vocabulary is learnt from the captions: 512 bytes, merges, begin, end.
    return ClipConfig(
        vision=TowerConfig(width, layers, heads, 4 * width),
        text=TowerConfig(256, 2, 4, 1024),
        dim=dim,
        image_size=image_size,
        patch_size=patch,
        vocab_size=4096,
        context_length=32,
        eos_token_id=4095,
    )


def _openai(vision: TowerConfig, text: TowerConfig, dim: int, size: int, patch: int) -> ClipConfig:
    return ClipConfig(
        vision=vision,
        text=text,
        dim=dim,
        image_size=size,
        patch_size=patch,
        vocab_size=49408,
        context_length=77,
        eos_token_id=49407,
    )


_BASE, _BASE_TEXT = TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048)
_LARGE, _LARGE_TEXT = TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072)

# The vit shapes: Radford et al. 2021, table 19 (arXiv:2103.00020).
SHAPES: dict[str, ClipConfig] = {
    "tiny": _small(64, 2, 2, 32, 8, 64),
    "small": _small(256, 6, 4, 128, 16, 256),
    "vit-b-32": _openai(_BASE, _BASE_TEXT, 512, 224, 32),
    "vit-b-16": _openai(_BASE, _BASE_TEXT, 512, 224, 16),
    "vit-l-14": _openai(_LARGE, _LARGE_TEXT, 768, 224, 14),
    "vit-l-14-336": _openai(_LARGE, _LARGE_TEXT, 768, 336, 14),
}
PUBLISHED_SHAPES = tuple(name for name in SHAPES if name.startswith("vit-"))
