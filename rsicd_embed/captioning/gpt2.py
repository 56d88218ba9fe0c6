"""Hugging Face GPT-2 directories as decoders of captioners."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.captioning.caption_config import DecoderConfig
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.errors import ModelError, WeightsError
from rsicd_embed.files import read_json

TOKENIZER = "tokenizer.json"
_END = "<|endoftext|>"
_SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
# Settings of GPT-2 variants, with the only value that this decoder has.
_FIXED: Mapping[str, object] = {
    "activation_function": "gelu_new", "scale_attn_weights": True, "add_cross_attention": False,
    "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True,
}  # fmt: skip
_BUFFER = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
_BLOCK = {
    "ln_1": "norm1", "attn.c_attn": "attend", "attn.c_proj": "out",
    "ln_2": "norm2", "mlp.c_fc": "up", "mlp.c_proj": "down",
}  # fmt: skip


class BytePairs:
    """The vocabulary of a `tokenizer.json` whose captions end with GPT-2's end of text."""

    unwanted: Sequence[int] = ()

    def __init__(self, tokenizer: FastTokenizer) -> None:
        """Uses a tokenizer that has the end of text.

        Raises:
            ModelError: it has not.
        """
        end = tokenizer.token_to_id(_END)
        if end is None:
            raise ModelError(f"expected a tokenizer with {_END}, found none in its vocabulary")
        self.end = int(end)
        self._tokenizer = tokenizer

    @classmethod
    def read(cls, directory: Path) -> BytePairs:
        """Reads the tokenizer of a directory.

        Raises:
            ModelError: it cannot be read.
        """
        path = directory / TOKENIZER
        if not path.is_file():
            raise ModelError(
                f"expected {TOKENIZER} in {directory}, found none; save the model's tokenizer there"
            )
        try:
            return cls(FastTokenizer.from_file(str(path)))
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        except Exception as error:  # the library raises no narrower class
            raise ModelError(f"{path}: expected a tokenizer: {error}") from error

    @property
    def size(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, caption: str) -> list[int]:
        """The tokens of a caption, without its end."""
        return list(self._tokenizer.encode(caption, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The caption of tokens, with single spaces."""
        return " ".join(str(self._tokenizer.decode(list(tokens))).split())

    def save(self, directory: Path) -> None:
        """Writes tokenizer.json."""
        self._tokenizer.save(str(directory / TOKENIZER))


@dataclass(frozen=True)
class Gpt2:
    """A GPT-2.

    Attributes:
        config: its shape.
        arrays: its parameters, by their names in a `Decoder`.
        vocabulary: its tokens.
    """

    config: DecoderConfig
    arrays: dict[str, Any]
    vocabulary: BytePairs


def read_gpt2(directory: Path) -> Gpt2:
    """Reads a GPT-2 in the Hugging Face layout.

    Raises:
        ModelError: it is no GPT-2, or of a variant that this decoder lacks.
        WeightsError: the weights or the vocabulary do not match the config.
    """
    config = _config(directory)
    vocabulary = BytePairs.read(directory)
    if vocabulary.size != config.vocab_size:
        raise WeightsError(
            f"{directory}: expected a tokenizer of {config.vocab_size} tokens, which config.json "
            f"says, found {vocabulary.size}; save this model's own tokenizer there"
        )
    return Gpt2(config, _arrays(config, weight_files.load(directory), directory), vocabulary)


def _config(directory: Path) -> DecoderConfig:
    content = read_json(directory / "config.json")
    if content.get("model_type") != "gpt2":
        raise ModelError(
            f"{directory}: expected a GPT-2 as decoder, found a model of type "
            f"{content.get('model_type')!r}"
        )
    for name, value in _FIXED.items():
        if content.get(name, value) != value:
            raise ModelError(
                f"{directory}: expected a GPT-2 with {name} {value!r}, found {content[name]!r}"
            )
    missing = [name for name in _SIZES if not isinstance(content.get(name), int)]
    if missing:
        raise ModelError(f"{directory / 'config.json'}: expected {', '.join(missing)} as integers")
    vocab_size, positions, width, layers, heads = (content[name] for name in _SIZES)
    hidden = content.get("n_inner") or 4 * width
    eps = content.get("layer_norm_epsilon", 1e-5)
    return DecoderConfig(vocab_size, positions, width, layers, heads, hidden, eps)


def _shapes(config: DecoderConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name of the parameter of a `Decoder` and shape, by the names of a checkpoint."""
    width, hidden = config.width, config.mlp_width
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "wte.weight": ("token_embed.embedding", (config.vocab_size, width)),
        "wpe.weight": ("position_embed", (config.positions, width)),
        "ln_f.weight": ("norm_post.scale", (width,)),
        "ln_f.bias": ("norm_post.bias", (width,)),
    }
    linear = {
        "attend": (width, 3 * width), "out": (width, width),
        "up": (width, hidden), "down": (hidden, width),
    }  # fmt: skip
    for number in range(config.layers):
        for theirs, ours in _BLOCK.items():
            name, kernel = f"blocks.{number}.{ours}", linear.get(ours)
            leaf = "kernel" if kernel else "scale"
            # GPT-2 stores (in, out), unlike PyTorch's linear layers.
            shapes[f"h.{number}.{theirs}.weight"] = (f"{name}.{leaf}", kernel or (width,))
            shapes[f"h.{number}.{theirs}.bias"] = (f"{name}.bias", (kernel or (width,))[-1:])
    return shapes


def _arrays(
    config: DecoderConfig, stored: Mapping[str, np.ndarray], directory: Path
) -> dict[str, Any]:
    named = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    head = named.pop("lm_head.weight", None)
    shapes = _shapes(config)
    unused = [n for n in named if n not in shapes and not _BUFFER.fullmatch(n)]
    problems = [f"missing {name}" for name in shapes if name not in named]
    problems += [f"unused {name}" for name in sorted(unused)]
    arrays = {}
    for name, (ours, shape) in shapes.items():
        if name not in named:
            continue
        if named[name].shape != shape:
            problems.append(f"{name}: expected shape {shape}, found {named[name].shape}")
        elif not np.isfinite(named[name]).all():
            problems.append(f"{name}: NaN or infinity")
        arrays[ours] = jnp.asarray(named[name], jnp.float32)
    if head is not None and not np.array_equal(head, named.get("wte.weight", head)):
        problems.append("lm_head.weight: expected the token embeddings, found other values")
    if problems:
        more = f"; {len(problems) - 5} more" if problems[5:] else ""
        listed = "; ".join(problems[:5]) + more
        raise WeightsError(f"{directory}: the weights do not match the config: {listed}")
    return arrays
