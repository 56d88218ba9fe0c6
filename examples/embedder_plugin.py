"""An embedder plug-in in fifty lines: images and colour words by their mean colour.

To use it with `rsicd-embed ingest … --model colour:`, a package declares it in its pyproject.toml:

    [project.entry-points."rsicd_embed.embedders"]
    colour = "my_package.embedder_plugin:load"
"""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageColor

from rsicd_embed.embedder import Fingerprint, ImageLike, read_pixels, require_texts


class ColourEmbedder:
    name, dim = "colour:", 4
    fingerprint = str(Fingerprint("mean-colour-1", "resize-8", "colour-names", dim=4))

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((8, 8)))

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return self._unit(pixels.reshape(len(pixels), 64, 3).mean(axis=1))

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        pixels = list(read_pixels(images, self.preprocess, ahead=64))
        return self.embed_pixels(np.stack(pixels) if pixels else np.empty((0, 8, 8, 3)))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        require_texts(texts)
        words = (next((w for w in t.split() if w in ImageColor.colormap), "grey") for t in texts)
        colours = [ImageColor.getrgb(word)[:3] for word in words]
        return self._unit(np.array(colours, np.float32).reshape(-1, 3))

    def _unit(self, colours: np.ndarray) -> np.ndarray:
        points = np.c_[colours / 127.5 - 1, np.full(len(colours), 0.1)].astype(np.float32)
        return points / np.linalg.norm(points, axis=1, keepdims=True)


def load(argument: str, *, batch_size: int) -> ColourEmbedder:
    """The entry point; `argument` is the text after the colon of --model."""
    return ColourEmbedder(batch_size)
