"""Computes the maps before the last stage of a ResNet once, for views of all training images.

    python -m scripts.cache_maps --start runs/start --dataset PATH/TO/rsicd --dataset PATH/TO/ucm \
        --views 6 --out runs/maps

Training the last stage on them costs a fifth of the full step. View 0 is the image as the model
sees it; the others imitate other sensors: crops, turns, lower resolution, colour casts. Maps are
stored in eight bits, as the square root of their fraction of a channel's largest value. Finished
files are kept, so that the same command continues, or adds views.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.errors import ModelError
from rsicd_embed.files import write_file
from rsicd_embed.images import read_rgb
from rsicd_embed.parallel import batched, ordered_map
from rsicd_embed.train.input import training_data
from rsicd_embed.train.input.training_data import TrainingData
from scripts import torch_towers

LAST = 3  # the stage that is trained
_BATCH = 64
_SAMPLE = 512  # images that determine the scale of each channel
_HEADROOM = 1.2
_SETTINGS = "maps.json"


@dataclass(frozen=True)
class MapCache:
    """Maps of a train and a val split in a folder.

    Attributes:
        folder: the folder.
        scale: float32 (c,), the largest value of each channel.
    """

    folder: Path
    scale: np.ndarray

    @classmethod
    def of(cls, folder: Path, key: str) -> MapCache:
        """Opens the folder of a model and its images, by their `key`.

        Raises:
            ModelError: it does not exist, or belongs to another model or other images.
        """
        path = folder / _SETTINGS
        stored = json.loads(path.read_text())["of"] if path.exists() else "none"
        if stored != key:
            raise ModelError(
                f"{folder}: expected maps of {key}, found {stored}; run scripts.cache_maps"
            )
        return cls(folder, np.load(folder / "scale.npy"))

    @staticmethod
    def key(model: ModelParts, data: TrainingData) -> str:
        """Identifies a model and the images of a train and a val split."""
        ids = "\n".join(example.id for example in (*data.train, *data.val))
        return f"{model.fingerprint} {hashlib.sha256(ids.encode()).hexdigest()[:16]}"

    def views(self) -> list[np.ndarray]:
        """The finished views of the train split, uint8 (n, h, w, c) each, memory-mapped."""
        paths = sorted(self.folder.glob("train-*.npy"), key=lambda path: int(path.stem[6:]))
        return [np.load(path, mmap_mode="r") for path in paths]

    def val(self) -> np.ndarray:
        """The maps of the val split, as `views`."""
        maps: np.ndarray = np.load(self.folder / "val.npy", mmap_mode="r")
        return maps

    def unpack(self, maps: np.ndarray) -> torch.Tensor:
        """uint8 (b, h, w, c) → bfloat16 (b, c, h, w)."""
        values = torch.tensor(maps).float().square_() * torch.tensor(self.scale / 255**2)
        return values.bfloat16().permute(0, 3, 1, 2)

    def pack(self, maps: np.ndarray) -> np.ndarray:
        """float32 (b, h, w, c) → uint8."""
        return np.rint(255 * np.sqrt(np.clip(maps / self.scale, 0, 1))).astype(np.uint8)


def random_view(image: Image.Image, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random view of an image of any size: uint8 (side, side, 3)."""
    short = min(image.size)
    if rng.random() < 0.12:  # from higher up: the surroundings are mirrored
        pad = int(short * rng.uniform(0.1, 0.35))
        around = np.pad(np.asarray(image), ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        image, span = Image.fromarray(around), float(short + 2 * pad)
    else:
        span = short * float(np.sqrt(rng.uniform(0.3, 1.0)))
    left, top = rng.uniform(0, image.width - span), rng.uniform(0, image.height - span)
    box = (left, top, left + span, top + span)
    if rng.random() < 0.25:  # a coarser sensor
        coarse = int(side * rng.uniform(0.3, 0.9))
        image, box = image.resize((coarse, coarse), Image.Resampling.BICUBIC, box), None
    x = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box))
    x = np.rot90(x, rng.integers(4))
    x = (x[:, ::-1] if rng.random() < 0.5 else x).astype(np.float32)
    x = x * (rng.uniform(0.75, 1.3) * rng.uniform(0.85, 1.15, 3))
    x = x.mean() + (x - x.mean()) * rng.uniform(0.7, 1.35)
    grey = (x @ np.array([0.299, 0.587, 0.114]))[..., None]
    x = grey + (x - grey) * (0.0 if rng.random() < 0.05 else rng.uniform(0.4, 1.5))
    return np.clip(x, 0, 255).astype(np.uint8)


class Trunk:
    """The stages before the last one, in bfloat16."""

    def __init__(self, model: ModelParts) -> None:
        """Takes the tensors of a model with a ResNet.

        Raises:
            ModelError: it has another image tower.
        """
        if not isinstance(model.config.vision, ResNetConfig):
            raise ModelError("expected a model with a ResNet, found another image tower")
        self._tower = model.config.vision
        self._model = model
        self._tensors = torch_towers.by_name(model.tensors)

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (b, side, side, 3) → float32 (b, h, w, c)."""
        x = torch.from_numpy(self._model.preprocessor.normalise(pixels)).permute(0, 3, 1, 2)
        with torch.autocast("cpu", torch.bfloat16):
            x = torch_towers.resnet_stem(self._tensors, self._tower, x)
            for stage in range(LAST):
                x = torch_towers.resnet_stage(self._tensors, self._tower, stage, x)
        maps: np.ndarray = x.float().permute(0, 2, 3, 1).numpy()
        return maps


def cache(model: ModelParts, data: TrainingData, folder: Path, views: int) -> None:
    """Computes all views of the train split and view 0 of the val split."""
    trunk, side = Trunk(model), model.config.image_size
    folder.mkdir(parents=True, exist_ok=True)

    def view(number: int, place_example: tuple[int, Example]) -> np.ndarray:
        place, example = place_example
        image = read_rgb(example.path)
        if number == 0:
            return model.preprocessor(image)
        return random_view(image, side, np.random.default_rng([number, place]))

    def computed(examples: Sequence[Example], number: int) -> Iterator[np.ndarray]:
        pixels = ordered_map(partial(view, number), enumerate(examples), ahead=2 * _BATCH)
        return (trunk(np.stack(batch)) for batch in batched(pixels, _BATCH))

    key = MapCache.key(model, data)
    if not (folder / _SETTINGS).exists():
        order = np.random.default_rng(0).permutation(len(data.train))[:_SAMPLE]
        largest = [m.max((0, 1, 2)) for m in computed([data.train[i] for i in order], 0)]
        scale = np.maximum(np.max(largest, axis=0) * _HEADROOM, 1e-3).astype(np.float32)
        write_file(folder / "scale.npy", lambda aside: np.save(aside, scale))
        (folder / _SETTINGS).write_text(json.dumps({"of": key}) + "\n")
    packed = MapCache.of(folder, key)

    def fill(path: Path, examples: Sequence[Example], number: int) -> None:
        def write(aside: Path) -> None:
            done = 0
            for maps in computed(examples, number):
                if not done:
                    shape = (len(examples), *maps.shape[1:])
                    out = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=shape)
                out[done : done + len(maps)] = packed.pack(maps)
                done += len(maps)
            out.flush()

        if not path.exists():
            write_file(path, write)
            print(f"{path}: {len(examples)} images", flush=True)

    fill(folder / "val.npy", data.val, 0)
    for number in range(views):
        fill(folder / f"train-{number}.npy", data.train, number)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="from pretrained_towers.py")
    parser.add_argument("--dataset", type=Path, action="append", required=True)
    parser.add_argument("--views", type=int, default=6, help="views of each training image")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    data = training_data.training_source([(path, 1.0) for path in options.dataset])
    cache(parts.read(options.start), data, options.out, options.views)


if __name__ == "__main__":
    main()
