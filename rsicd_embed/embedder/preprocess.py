"""Image preprocessing, equal to transformers' CLIPImageProcessor and SiglipImageProcessor, and to
open_clip's transform."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from rsicd_embed.errors import ModelError
from rsicd_embed.records import later_fields

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Longest side of a resized image. Beyond it (for a 1×10000 image, say) only the part that the crop
# keeps is resized.
_MAX_RESIZED_SIDE = 16_384


@dataclass(frozen=True, repr=False)
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
        rounded_crop: round half pixels of the crop's margin to even, as torchvision and open_clip
            do; otherwise down, as transformers does.
    """

    resize: int | tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int = int(Image.Resampling.BICUBIC)
    scale: float = 1 / 255
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    rounded_crop: bool = False

    def __repr__(self) -> str:
        return later_fields(self, "rounded_crop")

    def __call__(self, image: Image.Image) -> np.ndarray:
        """Resizes and crops an upright RGB image to uint8 (height, width, 3)."""
        return _crop(_resize(image, self), self)

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


def _crop(image: Image.Image, preprocessor: Preprocessor) -> np.ndarray:
    pixels, crop = np.asarray(image), preprocessor.crop
    if crop is None:
        return pixels
    height, width = crop
    # The reference pads smaller images with black, with the odd pixel in front.
    pad = [max(0, want - have) for want, have in zip(crop, pixels.shape[:2], strict=True)]
    if any(pad):
        pixels = np.pad(pixels, [((p + 1) // 2, p // 2) for p in pad] + [(0, 0)])
    margins = pixels.shape[0] - height, pixels.shape[1] - width
    top, left = (round(m / 2) if preprocessor.rounded_crop else m // 2 for m in margins)
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

    siglip = str(config.get("image_processor_type", "")).startswith("Siglip")
    mean, deviation = ((0.5,) * 3,) * 2 if siglip else (CLIP_MEAN, CLIP_STD)
    crop = config.get("do_center_crop", not siglip)
    rescale, normalise = config.get("do_rescale", True), config.get("do_normalize", True)
    resample = config.get("resample", Image.Resampling.BICUBIC)
    if resample not in list(Image.Resampling):
        raise _expected("resample to be a filter of Pillow's, 0 to 5", resample)
    std = _numbers(config, "image_std", deviation, 3) if normalise else (1.0, 1.0, 1.0)
    if 0 in std:
        raise _expected("image_std above 0", list(std))
    return Preprocessor(
        resize=resize(),
        crop=sides(config.get("crop_size", 224)) if crop else None,
        resample=int(resample),
        scale=float(_numbers(config, "rescale_factor", 1 / 255, 1)[0]) if rescale else 1.0,
        mean=_numbers(config, "image_mean", mean, 3) if normalise else (0.0, 0.0, 0.0),
        std=std,
        rounded_crop=bool(config.get("rounded_crop", False)),
    )


def from_open_clip(config: Mapping[str, Any], side: int) -> Preprocessor:
    """Reads the `preprocess_cfg` of an `open_clip_config.json`; {} for open_clip's defaults.

    Args:
        config: its content.
        side: height and width of the model's images.

    Raises:
        ModelError: a setting is invalid or not supported.
    """
    filters = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    mode, name = config.get("resize_mode", "shortest"), config.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or name not in filters:
        raise ModelError(
            "open_clip_config.json: expected resize_mode shortest or squash and interpolation "
            f"bicubic or bilinear, found {mode!r} and {name!r}"
        )
    values = {f"image_{key}": config[key] for key in ("mean", "std") if config.get(key)}
    return Preprocessor(
        resize=side if mode == "shortest" else (side, side),
        crop=(side, side) if mode == "shortest" else None,
        resample=int(filters[name]),
        mean=_numbers(values, "image_mean", CLIP_MEAN, 3),
        std=_numbers(values, "image_std", CLIP_STD, 3),
        rounded_crop=mode == "shortest",
    )


def to_open_clip(preprocessor: Preprocessor) -> dict[str, Any]:
    """The `preprocess_cfg` of an `open_clip_config.json`.

    Raises:
        ModelError: open_clip cannot do the same.
    """
    squash = isinstance(preprocessor.resize, tuple)
    filters = {int(Image.Resampling.BICUBIC): "bicubic", int(Image.Resampling.BILINEAR): "bilinear"}
    if preprocessor.resize is None or preprocessor.resample not in filters:
        raise ModelError(f"open_clip has no such preprocessing: {preprocessor}")
    return {
        "mean": list(preprocessor.mean),
        "std": list(preprocessor.std),
        "interpolation": filters[preprocessor.resample],
        "resize_mode": "squash" if squash else "shortest",
    }


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
        ModelError: the preprocessor keeps the size of images.
    """
    resize, crop = preprocessor.resize, preprocessor.crop
    if resize is None or (crop is None and isinstance(resize, int)):
        raise ModelError(
            "expected a preprocessor that gives all images one size, found "
            f"{preprocessor}; others cannot be saved"
        )
    size = (
        {"shortest_edge": resize}
        if isinstance(resize, int)
        else {"height": resize[0], "width": resize[1]}
    )
    cropped: dict[str, Any] = {"do_center_crop": False}
    if crop is not None:
        cropped = {"do_center_crop": True, "crop_size": {"height": crop[0], "width": crop[1]}}
    if preprocessor.rounded_crop:
        cropped["rounded_crop"] = True
    kind = "SiglipImageProcessor" if crop is None else "CLIPImageProcessor"
    return {
        "image_processor_type": kind,
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size,
        "resample": preprocessor.resample,
        **cropped,
        "do_rescale": True,
        "rescale_factor": preprocessor.scale,
        "do_normalize": True,
        "image_mean": list(preprocessor.mean),
        "image_std": list(preprocessor.std),
    }
