"""Shapes of captioners, and how captions are decoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from rsicd_embed.errors import ArgumentError, ModelError

Method: TypeAlias = Literal["greedy", "beam", "nucleus"]
METHODS: tuple[Method, ...] = ("greedy", "beam", "nucleus")

_LONGEST = 25  # tokens of a caption, with its end, by default
MODEL_TYPE = "rsicd-embed-captioner"


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a causal decoder in GPT-2's design (Radford et al. 2019).

    Attributes:
        vocab_size: number of tokens.
        positions: largest number of positions, prefix included.
        width: width of the residual stream.
        layers: number of blocks.
        heads: attention heads per block; they divide the width.
        mlp_width: hidden width of the perceptrons.
        eps: added to the variance in layer norms.
    """

    vocab_size: int
    positions: int = 48
    width: int = 256
    layers: int = 3
    heads: int = 4
    mlp_width: int = 1024
    eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.vocab_size, self.positions, self.width, self.layers, self.heads)
        if min(*sizes, self.mlp_width) < 1:
            raise ModelError(f"expected a decoder with sizes of at least 1, found {self}")
        if self.width % self.heads:
            raise ModelError(
                f"expected a width divisible by the {self.heads} heads of the decoder, found "
                f"{self.width}"
            )


@dataclass(frozen=True)
class CaptionerConfig:
    """Shape of a captioner (ClipCap, arXiv:2111.09734).

    Attributes:
        decoder: the decoder.
        vector_dim: dimension of the images' vectors.
        prefix: number of positions that the mapping network fills.
        mapping_width: hidden width of the mapping network.
    """

    decoder: DecoderConfig
    vector_dim: int
    prefix: int = 4
    mapping_width: int = 2048

    def __post_init__(self) -> None:
        if min(self.vector_dim, self.prefix, self.mapping_width) < 1:
            raise ModelError(f"expected a captioner with sizes of at least 1, found {self}")
        if self.prefix >= self.decoder.positions:
            raise ModelError(
                f"expected a prefix shorter than the {self.decoder.positions} positions of the "
                f"decoder, found {self.prefix}"
            )

    @property
    def longest(self) -> int:
        """Largest number of tokens in a caption, with its end."""
        return self.decoder.positions - self.prefix + 1

    def as_dict(self) -> dict[str, Any]:
        """The shape as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaptionerConfig:
        """Inverse of `as_dict`.

        Raises:
            ModelError: a value is missing, unknown or impossible.
        """
        try:
            decoder = DecoderConfig(**values["decoder"])
            return cls(decoder, **{k: v for k, v in values.items() if k != "decoder"})
        except (KeyError, TypeError) as error:
            raise ModelError(f"expected the sizes of a captioner, found {values}") from error


@dataclass(frozen=True)
class Decoding:
    """How captions are decoded.

    Attributes:
        method: greedy: the most likely word each time; beam: the best of several captions that
            are extended in parallel; nucleus: random words among the most likely ones
            (arXiv:1904.09751).
        beams: captions that a beam search keeps.
        length_penalty: beams are compared by log-probability / length ** penalty.
        top_p: total probability of the words that nucleus sampling considers.
        temperature: divides the logits of nucleus sampling.
        no_repeat: no sequence of this many words occurs twice in a caption; 0 allows repetitions.
        max_words: longest caption, in tokens; None for 24, or fewer if the decoder allows no more.
        seed: random seed of nucleus sampling.
    """

    method: Method = "beam"
    beams: int = 5
    length_penalty: float = 1.0
    top_p: float = 0.9
    temperature: float = 1.0
    no_repeat: int = 3
    max_words: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ArgumentError(f"expected one of {', '.join(METHODS)}, found {self.method!r}")
        limits = (
            ("beams ≥ 1", self.beams, self.beams >= 1),
            ("a length penalty ≥ 0", self.length_penalty, 0 <= self.length_penalty < math.inf),
            ("a top-p in (0, 1]", self.top_p, 0 < self.top_p <= 1),
            ("a temperature > 0", self.temperature, 0 < self.temperature < math.inf),
            ("a length of repetitions ≥ 0", self.no_repeat, self.no_repeat >= 0),
            ("at least one word", self.max_words, self.max_words is None or self.max_words >= 1),
        )
        for expected, found, is_met in limits:
            if not is_met:
                raise ArgumentError(f"expected {expected}, found {found}")

    def steps(self, config: CaptionerConfig) -> int:
        """Number of tokens to decode, with the end of the caption.

        Raises:
            ArgumentError: captions would be longer than the decoder's context.
        """
        longest = config.longest
        if self.max_words is None:
            return min(longest, _LONGEST)
        if self.max_words + 1 > longest:
            raise ArgumentError(
                f"expected captions of at most {longest - 1} words, the context of this captioner, "
                f"found {self.max_words}"
            )
        return self.max_words + 1
