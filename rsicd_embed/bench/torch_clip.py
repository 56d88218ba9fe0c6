"""The reference: transformers' CLIPModel in PyTorch, on a model's own weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.errors import BenchError
from rsicd_embed.parallel import cpu_count


@dataclass(frozen=True)
class ClipDirectory:
    """A CLIP in the Hugging Face layout, and how it wants its pixels.

    Attributes:
        path: the directory.
        image_size: side of the square pixels.
        context_length: most tokens a text may have.
        scale: what a byte is multiplied by; then mean and std are taken off, a channel each.
    """

    path: Path
    image_size: int
    context_length: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TorchClip:
    """float32, scaled dot-product attention, all processors, inference mode.

    `embed_pixels` and `embed_texts` take and give what an `Embedder`'s do, so that each does the
    same work: bytes or strings in, unit vectors out.
    """

    def __init__(self, model: ClipDirectory) -> None:
        """Reads the model.

        Raises:
            BenchError: transformers cannot read it.
        """
        import torch

        mend_torchvision()
        import transformers

        logging: Any = transformers.logging
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(cpu_count())
        self.directory = model
        try:
            clip: Any = transformers.CLIPModel.from_pretrained(
                str(model.path),
                attn_implementation="sdpa",
                dtype=torch.float32,
                local_files_only=True,
            )
            self.tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(
                str(model.path), local_files_only=True
            )
        except (OSError, ValueError) as error:
            raise BenchError(f"transformers cannot read {model.path}: {error}") from error
        self.clip = clip.eval()
        self._mean = torch.tensor(model.mean).view(1, 3, 1, 1)
        self._std = torch.tensor(model.std).view(1, 3, 1, 1)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 (n, H, W, 3) → float32 (n, dim)."""
        import torch

        with torch.inference_mode():
            found: np.ndarray = self.image_vectors(torch.from_numpy(pixels)).numpy()
        return found

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts → float32 (n, dim)."""
        import torch

        with torch.inference_mode():
            found: np.ndarray = self.text_vectors(torch.from_numpy(self.tokens(texts))).numpy()
        return found

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """int64 (n, t), padded to the longest."""
        return tokens(self.tokenizer, texts, self.directory.context_length)

    def image_vectors(self, pixels: Any) -> Any:
        """The tensors of it: uint8 (n, H, W, 3) → unit vectors."""
        import torch

        floats = pixels.permute(0, 3, 1, 2).to(torch.float32) * self.directory.scale
        return _unit(self.clip.get_image_features((floats - self._mean) / self._std))

    def text_vectors(self, ids: Any) -> Any:
        """The tensors of it: int64 (n, t) → unit vectors.

        Attention is causal, so that what pads a text changes nothing, and no mask is needed.
        """
        return _unit(self.clip.get_text_features(ids))


def tokens(tokenizer: Any, texts: Sequence[str], context_length: int) -> np.ndarray:
    """int64 (n, t), padded to the longest, by transformers' tokenizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoded = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=context_length,
            return_tensors="np",
        )
    return np.asarray(encoded["input_ids"], np.int64)


def _unit(features: Any) -> Any:
    # transformers 5 wraps what transformers 4 returned.
    features = getattr(features, "pooler_output", features)
    return features / features.norm(dim=-1, keepdim=True)
