"""Small datasets with known results, and an embedder that sees only colours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from rsicd_embed.images import ImageLike, read_rgb

COLOURS = {"desert": (230, 190, 60), "forest": (20, 120, 20), "sea": (20, 60, 200)}


class Colours:
    """An `Embedder` of three dimensions: an image's mean colour, or the colour that a text names.

    Texts without a known word are yellow; the words in `blind` are unknown.
    """

    name = "colours"
    dim = 3
    batch_size = 4

    def __init__(self, blind: Sequence[str] = ()) -> None:
        self.fingerprint = f"weights:{'-'.join(blind)}/preprocessing:one/tokenizer:words/dim:3"
        self._words = {word: rgb for word, rgb in COLOURS.items() if word not in blind}

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((1, 1), Image.Resampling.BOX))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return unit(pixels.reshape(-1, 3))

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        return self.embed_pixels(np.stack([self.preprocess(read_rgb(image)) for image in images]))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        named = [next((w for w in self._words if w in text), None) for text in texts]
        return unit(np.array([self._words[w] if w else (255, 240, 0) for w in named]))


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 rows of length one."""
    wide = vectors.astype(np.float64).reshape(-1, 3)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def colour(path: Path, rgb: tuple[int, int, int]) -> Path:
    """Writes an image of a single colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), rgb).save(path)
    return path


def shade(rgb: tuple[int, int, int], i: int) -> tuple[int, int, int]:
    """Nearly the same colour, different for each i."""
    red, green, blue = rgb
    return red + i % 5, green + i % 3, blue + i % 7


def class_folder(folder: Path, images: int = 4, splits: Sequence[str] = ()) -> Path:
    """One folder a colour, with `images` pictures each, in each split if there are some."""
    for split in splits or ("",):
        for label, rgb in COLOURS.items():
            for i in range(images):
                colour(folder / split / label / f"{i}.png", shade(rgb, i))
    return folder


def captioned(folder: Path, images: int = 4, splits: Sequence[str] = ("train", "test")) -> Path:
    """Like RSICD: each image has two captions, one of them shared by its class."""
    entries = []
    for split in splits:
        for label, rgb in COLOURS.items():
            for i in range(images):
                name = f"{label}_{len(entries)}.png"
                colour(folder / "images" / name, shade(rgb, i))
                texts = [f"a {label} .", f"a {label} , number {i} ."]
                sentences = [{"raw": text} for text in texts]
                entries.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset_toy.json").write_text(json.dumps({"images": entries}))
    return folder
