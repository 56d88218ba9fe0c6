"""CLIP image preprocessing, equal to Hugging Face's CLIPImageProcessor."""

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

# Longest side of a resized image. Beyond it (for a 1×10000 image, say) only the part that the crop
# keeps is resized.
_MAX_RESIZED_SIDE = 16_384


@dataclass(frozen=True)
class Preprocessor:
    """Resizes, crops the centre and normalises.

    Attributes:
        resize: length of the shorter side in pixels; or (height, width), ignoring the aspect
            ratio; None to keep the size.
        crop: (height, width) in pixels; None to keep everything.
        resample: Pillow's number of the resampling filter; 3 is bicubic.
        scale: factor applied to the bytes.
        mean: subtracted from each channel after scaling.
        std: divides each channel after that.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int = int(Image.Resampling.BICUBIC)
    scale: float = 1 / 255
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Resizes and crops an upright RGB image to uint8 (height, width, 3)."""
        return _crop(_resize(image, self), self.crop)

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Normalises uint8 (…, 3) to float32 (…, 3), with the reference's order of operations."""
        scaled = (pixels * np.float64(self.scale)).astype(np.float32)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        return (scaled - mean) / std

    def digest(self) -> str:
        """Hash of the settings and of a version number.

        The version increases when resizing or 8-bit decoding changes. It did not when scaling of
        deeper images changed, since the vectors of 8-bit images, and so most stores, stayed valid.
        """
        return hashlib.sha256(f"1 {self!r}".encode()).hexdigest()[:16]


def _resize(image: Image.Image, preprocessor: Preprocessor) -> Image.Image:
    size, crop = preprocessor.resize, preprocessor.crop
    if size is None:
        return image
    resample = Image.Resampling(preprocessor.resample)
    if isinstance(size, tuple):
        height, width = size
        return image.resize((width, height), resample)
    short, long = sorted(image.size)
    new_long = int(size * long / short)
    wide = image.width >= image.height
    if new_long <= _MAX_RESIZED_SIDE or crop is None:
        return image.resize((new_long, size) if wide else (size, new_long), resample)
    # Only the middle survives the crop: resize that, with a margin of one crop on each side.
    middle = 3 * max(crop)
    span = middle * short / size
    start = (long - span) / 2
    box = (start, 0, start + span, short) if wide else (0, start, short, start + span)
    return image.resize((middle, size) if wide else (size, middle), resample, box=box)


def _crop(image: Image.Image, crop: tuple[int, int] | None) -> np.ndarray:
    pixels = np.asarray(image)
    if crop is None:
        return pixels
    height, width = crop
    # The reference pads smaller images with black, with the odd pixel in front.
    pad = [max(0, want - have) for want, have in zip(crop, pixels.shape[:2], strict=True)]
    if any(pad):
        pixels = np.pad(pixels, [((p + 1) // 2, p // 2) for p in pad] + [(0, 0)])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def from_hf(config: Mapping[str, Any]) -> Preprocessor:
    """Reads the content of a Hugging Face `preprocessor_config.json`, in old and new forms.

    Raises:
        ModelError: a setting is invalid.
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
    """A setting of `count` finite numbers as a tuple; a single number is not in a list."""
    value = config.get(name, default)
    values = (value,) if count == 1 else tuple(value) if isinstance(value, list | tuple) else ()
    if len(values) != count or not all(
        isinstance(number, int | float) and math.isfinite(number) for number in values
    ):
        raise _expected(f"{name} as {count} number{'s' * (count > 1)}", value)
    return values  # not converted, since `Preprocessor.digest` hashes their text


def _expected(wanted: str, value: Any) -> ModelError:
    return ModelError(f"preprocessor_config.json: expected {wanted}, found {value!r}")


def to_hf(preprocessor: Preprocessor) -> dict[str, Any]:
    """The content of a `preprocessor_config.json`.

    Raises:
        ModelError: the preprocessor does not resize the shorter side and crop.
    """
    if not isinstance(preprocessor.resize, int) or preprocessor.crop is None:
        raise ModelError(
            "expected a preprocessor that resizes the shorter side and crops, found "
            f"{preprocessor}; others cannot be saved"
        )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": preprocessor.resize},
        "resample": preprocessor.resample,
        "do_center_crop": True,
        "crop_size": {"height": preprocessor.crop[0], "width": preprocessor.crop[1]},
        "do_rescale": True,
        "rescale_factor": preprocessor.scale,
        "do_normalize": True,
        "image_mean": list(preprocessor.mean),
        "image_std": list(preprocessor.std),
    }
