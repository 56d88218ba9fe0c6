"""Random views of images by torchvision's transforms v2, as in CLIP-rsicd."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import AugmentConfig

# torchvision uses the process's only torch generator.
_GENERATOR_LOCK = Lock()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread: on small images, threads mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def require_torchvision() -> None:
    """Raises unless torchvision is installed."""
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            raise TrainError(
                f"augment.engine=torchvision needs {name}, which is not installed: "
                "pip install 'rsicd-embed[augment]', or set augment.engine=device"
            )


@dataclass(frozen=True)
class Views:
    """Makes random views.

    Attributes:
        augment: augmentation settings.
        side: height and width of the images.
        size: height and width of the views.
    """

    augment: AugmentConfig
    side: int
    size: int

    def __call__(self, pixels: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Maps uint8 (n, side, side, 3) and uint64 (n,) seeds to uint8 (n, size, size, 3).

        A view is a function of its image and seed alone; torch's generator is left unchanged.
        """
        import torch

        views = np.empty((len(pixels), self.size, self.size, 3), np.uint8)
        with _GENERATOR_LOCK, _one_thread(), torch.random.fork_rng(devices=[]):
            for i, (image, seed) in enumerate(zip(pixels, seeds, strict=True)):
                torch.default_generator.manual_seed(int(seed))
                view = self._transform(torch.from_numpy(image).permute(2, 0, 1))
                views[i] = view.permute(1, 2, 0).numpy()
        return views

    @cached_property
    def _transform(self) -> Any:
        mend_torchvision()
        import torch
        from torchvision.transforms import v2

        def rotated(image: torch.Tensor) -> torch.Tensor:
            return torch.rot90(image, int(torch.randint(4, ())), (-2, -1))

        config = self.augment
        steps: list[Any] = []
        if config.crop_side < 1:
            steps.append(v2.RandomCrop(max(1, round(config.crop_side * self.side))))
        if config.jitter:
            steps.append(v2.ColorJitter(config.jitter, config.jitter, config.jitter))
        if config.horizontal_flip:
            steps.append(v2.RandomHorizontalFlip(config.horizontal_flip))
        if config.vertical_flip:
            steps.append(v2.RandomVerticalFlip(config.vertical_flip))
        if config.quarter_turns:
            steps.append(v2.Lambda(rotated))
        bicubic = v2.InterpolationMode.BICUBIC
        area = list(config.crop_area)
        steps.append(v2.RandomResizedCrop(self.size, area, ratio=[1.0, 1.0], interpolation=bicubic))
        return v2.Compose(steps)
