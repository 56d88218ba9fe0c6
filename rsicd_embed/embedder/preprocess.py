"""RGB pictures → the pixels a CLIP sees; equal to Hugging Face's CLIPImageProcessor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.errors import ModelError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The longest side a resized picture may have. Beyond it (a 1×10000 picture, say) only the part
# that the crop keeps is resized.
_MAX_RESIZED_SIDE = 16_384


@dataclass(frozen=True)
class Preprocessor:
    """Resizes the shorter side to `resize`, crops the centre to `crop`, normalises.

    Attributes:
        resize: length of the shorter side in pixels; or (height, width), whatever the shape was;
            None to leave the size alone.
        crop: (height, width) of the pixels; None to keep all.
        resample: Pillow's number of the resampling filter, 3 for bicubic.
        scale: what a byte is multiplied by.
        mean: per channel, subtracted after scaling.
        std: per channel, divided by after that.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int = int(Image.Resampling.BICUBIC)
    scale: float = 1 / 255
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Upright RGB picture → uint8 (height, width, 3), resized and cropped."""
        return _crop(_resize(image, self), self.crop)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (…, 3) → float32 (…, 3), in the reference's order of operations."""
        scaled = (pixels * np.float64(self.scale)).astype(np.float32)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return (scaled - mean) / std

    def digest(self) -> str:
        """Hash of the settings; its leading number grows when resizing or 8-bit decoding changes.

        It stayed when deeper pictures began to be scaled by the range they use: other vectors are
        as they were, so stores still open.
        """
        return hashlib.sha256(f"1 {self!r}".encode()).hexdigest()[:16]


def _resize(image: Image.Image, how: Preprocessor) -> Image.Image:
    if how.resize is None:
        return image
    resample = Image.Resampling(how.resample)
    if isinstance(how.resize, tuple):
        height, width = how.resize
        return image.resize((width, height), resample)
    short, long = sorted(image.size)
    new_long = int(how.resize * long / short)
    wide = image.width >= image.height
    if new_long <= _MAX_RESIZED_SIDE or how.crop is None:
        new = (new_long, how.resize) if wide else (how.resize, new_long)
        return image.resize(new, resample)
    # Only the middle survives the crop: resize just that, a crop's length of it on each side more.
    kept = 3 * max(how.crop)
    span = kept * short / how.resize
    start = (long - span) / 2
    box = (start, 0, start + span, short) if wide else (0, start, short, start + span)
    return image.resize((kept, how.resize) if wide else (how.resize, kept), resample, box=box)


def _crop(image: Image.Image, crop: tuple[int, int] | None) -> np.ndarray:
    pixels = np.asarray(image)
    if crop is None:
        return pixels
    height, width = crop
    # The reference pads a smaller picture with black, the odd pixel before it.
    pad = [max(0, want - have) for want, have in zip(crop, pixels.shape[:2], strict=True)]
    if any(pad):
        pixels = np.pad(pixels, [((p + 1) // 2, p // 2) for p in pad] + [(0, 0)])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def from_hf(config: Mapping[str, Any]) -> Preprocessor:
    """Reads the content of a Hugging Face `preprocessor_config.json`, old and new forms.

    Raises:
        ModelError: a size that is not understood.
    """

    def side(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise _expected("a height and a width", value)
        return value

    def sides(value: Any) -> tuple[int, int]:
        if isinstance(value, Mapping) and {"height", "width"} <= set(value):
            return side(value["height"]), side(value["width"])
        return side(value), side(value)

    def resize() -> int | tuple[int, int] | None:
        if not config.get("do_resize", True):
            return None
        size = config.get("size", 224)
        if isinstance(size, Mapping) and size.get("shortest_edge"):
            return side(size["shortest_edge"])
        return sides(size) if isinstance(size, Mapping) else side(size)

    crop = config.get("do_center_crop", True)
    rescale, normalise = config.get("do_rescale", True), config.get("do_normalize", True)
    resample = config.get("resample", Image.Resampling.BICUBIC)
    if resample not in list(Image.Resampling):
        raise _expected("resample to be a filter of Pillow's, 0 to 5", resample)
    std = _numbers(config, "image_std", CLIP_STD, 3) if normalise else (1.0, 1.0, 1.0)
    if 0 in std:
        raise _expected("image_std above 0", list(std))
    return Preprocessor(
        resize=resize(),
        crop=sides(config.get("crop_size", 224)) if crop else None,
        resample=int(resample),
        scale=float(_numbers(config, "rescale_factor", 1 / 255, 1)[0]) if rescale else 1.0,
        mean=_numbers(config, "image_mean", CLIP_MEAN, 3) if normalise else (0.0, 0.0, 0.0),
        std=std,
    )


def _numbers(config: Mapping[str, Any], name: str, default: Any, count: int) -> Any:
    """A tuple of `count` finite numbers; for one, the file has it alone."""
    value = config.get(name, default)
    values = (value,) if count == 1 else tuple(value) if isinstance(value, list | tuple) else ()
    if len(values) != count or not all(
        isinstance(one, int | float) and math.isfinite(one) for one in values
    ):
        raise _expected(f"{name} as {count} number{'s' * (count > 1)}", value)
    return values  # as they are written, since `Preprocessor.digest` is of their text


def _expected(wanted: str, value: Any) -> ModelError:
    return ModelError(f"preprocessor_config.json: expected {wanted}, found {value!r}")


def to_hf(how: Preprocessor) -> dict[str, Any]:
    """The content of a `preprocessor_config.json` for a square-cropping preprocessor."""
    if not isinstance(how.resize, int) or how.crop is None:
        raise ModelError("only preprocessors that resize the shorter side and crop are written")
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": how.resize},
        "resample": how.resample,
        "do_center_crop": True,
        "crop_size": {"height": how.crop[0], "width": how.crop[1]},
        "do_rescale": True,
        "rescale_factor": how.scale,
        "do_normalize": True,
        "image_mean": list(how.mean),
        "image_std": list(how.std),
    }
