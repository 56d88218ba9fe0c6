"""Small open_clip models with random weights, and their files as publishers write them."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tests.reference  # noqa: F401  (makes torchvision importable)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transform import image_transform_v2

VIT = {"image_size": 32, "layers": 2, "width": 128, "patch_size": 8}
RESNET = {"image_size": 64, "layers": [1, 1, 2, 1], "width": 16, "patch_size": None}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}

TEXTS = (
    "a harbour with boats",
    "“Two” planes &amp; a RUNWAY…",
    "",
    "日本の港 🚢 ﬁeld",
    "a very long caption " * 30,
)


def settings(vision: dict[str, Any] = VIT, *, quick: bool = False, **text: Any) -> dict[str, Any]:
    """The `model_cfg` of a model."""
    activation = {"quick_gelu": True} if quick else {}
    return {"embed_dim": 48, **activation, "vision_cfg": vision, "text_cfg": {**TEXT, **text}}


KINDS = {
    "gelu": settings(),
    "quick_gelu": settings(quick=True),
    "resnet": settings(RESNET),
}


def model(config: dict[str, Any], kind: type = CLIP) -> Any:
    """A model with random weights, scaled up so that it is far from linear."""
    torch.manual_seed(0)
    built = kind(**config).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name != "logit_scale":
                parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in built.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return built


def vectors(
    built: Any, images: Sequence[Image.Image], texts: Sequence[str], preprocess: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """The reference's unit vectors of images and texts."""
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    transform = preprocess or image_transform_v2(
        open_clip.transform.PreprocessCfg(size=built.visual.image_size), is_train=False
    )
    with torch.no_grad():
        pixels = torch.stack([transform(image) for image in images])
        return (
            built.encode_image(pixels, normalize=True).numpy(),
            built.encode_text(tokenize(list(texts)), normalize=True).numpy(),
        )


def hub_folder(folder: Path, built: Any, config: dict[str, Any], **preprocess: Any) -> Path:
    """A folder as open_clip's push_to_hf_hub writes it, without the tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir()
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    state = {name: value.contiguous() for name, value in built.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def random_texts(count: int) -> Iterator[str]:
    """Random texts of words, scripts, emoji, HTML and broken encodings."""
    draw = random.Random(0)
    ranges = [
        (0x20, 0x7F), (0xA0, 0x250), (0x370, 0x400), (0x400, 0x530), (0x590, 0x700),
        (0x900, 0xA00), (0xE00, 0xE80), (0x3040, 0x3100), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
        (0x2010, 0x2070), (0x2190, 0x2600), (0xFB00, 0xFB07), (0xFF01, 0xFF60),
        (0x1F300, 0x1F650), (0x1F900, 0x1FA00),
    ]  # fmt: skip
    words = "a river's don't HARBOUR &amp; &lt;b&gt; ‘so’ naïve cafe\u0301 schÃ¶n 12,5 km² \t\n"
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(0, 12)):
            if draw.random() < 0.5:
                parts.append(draw.choice(words.split(" ")))
            else:
                low, high = draw.choice(ranges)
                parts.append(
                    "".join(chr(draw.randrange(low, high)) for _ in range(draw.randint(1, 6)))
                )
        yield draw.choice((" ", "", "  ")).join(parts)


__all__ = ["CLIP", "CustomTextCLIP", "image_transform_v2", "open_clip"]
