"""How images are varied, so that a model does not learn them by heart."""

from __future__ import annotations

from dataclasses import dataclass

from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import checks

ENGINES = ("device", "torchvision", "none")

# Side that a crop keeps, and area that a resized crop keeps of that, where they are not set.
_CROP = {"device": 1.0, "torchvision": 0.8, "none": 1.0}
_AREA = {"device": (0.5, 1.0), "torchvision": (0.8, 1.0), "none": (1.0, 1.0)}


@dataclass(frozen=True)
class AugmentConfig:
    """Random views of images.

    With `torchvision`, what is not set is as in CLIP-rsicd's `run_clip_flax_tv.py`, but for two
    things: its colour jitter had no strength, so that it did nothing, and it made no quarter turns.
    `jitter=0` and `quarter_turns=false` are what it did; views are resampled once, not twice.

    Attributes:
        engine: device: on the accelerator, in float32, within the step; torchvision: transforms v2
            on bytes, in the loader's workers; none: images resized and cropped as the model's
            preprocessor does, nothing random.
        crop: fraction of the side that a random crop keeps, 1 for all; unset, 1 on the device and
            0.8 with torchvision.
        area: smallest and largest fraction of the crop's area that a second crop keeps, which is
            resized to the model's size; unset, [0.5, 1] on the device and [0.8, 1] with torchvision
            (CLIP-rsicd said [0.8, 1.2]; no crop is larger than its picture).
        jitter: brightness, contrast and saturation are each multiplied by a number within this of
            1; 0 for none.
        horizontal_flip: probability that left and right change places.
        vertical_flip: probability that top and bottom do.
        quarter_turns: whether views are turned by 0, 90, 180 or 270 degrees: aerial images have no
            up.
    """

    engine: str = "device"
    crop: float | None = None
    area: tuple[float, float] | None = None
    jitter: float = 0.25
    horizontal_flip: float = 0.5
    vertical_flip: float = 0.5
    quarter_turns: bool = True

    def __post_init__(self) -> None:
        checks.one_of(self, "engine", ENGINES)
        checks.fraction(self, "jitter", "horizontal_flip", "vertical_flip")
        if self.crop is not None:
            checks.above(self, 0, "crop")
            checks.fraction(self, "crop")
        if self.area is not None and not (
            len(self.area) == 2 and 0 < self.area[0] <= self.area[1] <= 1
        ):
            found = list(self.area)
            raise TrainError(f"expected area to be [least, most] within (0, 1], found {found}")

    @property
    def crop_side(self) -> float:
        """`crop`, or what the engine takes."""
        return _CROP[self.engine] if self.crop is None else self.crop

    @property
    def crop_area(self) -> tuple[float, float]:
        """`area`, or what the engine takes."""
        return _AREA[self.engine] if self.area is None else self.area
