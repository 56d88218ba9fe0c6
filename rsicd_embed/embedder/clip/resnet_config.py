"""The shape of a ResNet image tower, read from and written to a `config.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rsicd_embed.errors import ModelError

STRIDE = 32  # pixels per position of the last map, along each side
_BOTTLENECK = 4  # factor by which a bottleneck block is narrower inside


@dataclass(frozen=True)
class Convolution:
    """A square kernel with a bias, padded by half its side.

    With `pool` above 1, squares of that side are averaged before it.
    """

    inputs: int
    outputs: int
    side: int
    stride: int = 1
    pool: int = 1

    @property
    def padding(self) -> int:
        """Zeros added on each side, as in PyTorch; "SAME" would be asymmetric at stride 2."""
        return self.side // 2


@dataclass(frozen=True)
class Residual:
    """A block: convolutions with ReLUs between them, added to the input or its shortcut."""

    convolutions: tuple[Convolution, ...]
    shortcut: Convolution | None


@dataclass(frozen=True, repr=False)
class ResNetConfig:
    """A ResNet (He et al. 2015, arXiv:1512.03385) with batch norms folded into convolutions.

    Attributes:
        widths: output channels of each stage; every stage except the first halves the map.
        depths: number of blocks in each stage.
        stem_width: channels of the first convolution.
        bottleneck: blocks of three convolutions, as in ResNet-50; else of two, as in ResNet-18.
        downsample_in_bottleneck: halve the map in the first convolution of a bottleneck, as in the
            paper and Keras; else in the second, as in torchvision.
        attention_heads: heads of the attention that pools the last map in CLIP's modified ResNet
            (arXiv:2103.00020, section 2.4), which also has a stem of three convolutions, and
            averages squares of pixels instead of striding; 0 for a plain ResNet.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    stem_width: int = 64
    bottleneck: bool = False
    downsample_in_bottleneck: bool = False
    attention_heads: int = 0

    def __repr__(self) -> str:
        """Text hashed by fingerprints; it must not change for models of earlier versions."""
        later = ", downsample_in_bottleneck=True" if self.downsample_in_bottleneck else ""
        later += f", attention_heads={self.attention_heads}" if self.attention_heads else ""
        return (
            f"ResNetConfig(widths={self.widths}, depths={self.depths}, "
            f"stem_width={self.stem_width}, bottleneck={self.bottleneck}{later})"
        )

    def __post_init__(self) -> None:
        sizes = (*self.widths, *self.depths, self.stem_width)
        if len(self.widths) != 4 or len(self.depths) != 4 or min(sizes) < 1:
            raise ModelError(
                "expected a ResNet of four stages with widths and depths of 1 or more, "
                f"found widths {self.widths}, depths {self.depths}, stem {self.stem_width}"
            )
        if self.bottleneck and any(width % _BOTTLENECK for width in self.widths):
            raise ModelError(
                f"expected bottleneck widths divisible by {_BOTTLENECK}, found {self.widths}"
            )
        if self.attention_heads and (
            not self.bottleneck
            or self.downsample_in_bottleneck
            or self.width % self.attention_heads
            or self.stem_width % 2
        ):
            raise ModelError(
                "expected a ResNet with attention pooling to have plain bottleneck blocks, an even "
                f"stem and a width divisible by its heads, found {self}"
            )

    @property
    def width(self) -> int:
        """Length of the pooled features."""
        return self.widths[-1]

    @property
    def stem(self) -> tuple[Convolution, ...]:
        """The first convolutions, each with a ReLU.

        A 3×3 max-pool of stride 2 follows, or an average of 2×2 in a modified ResNet.
        """
        width = self.stem_width
        if not self.attention_heads:
            return (Convolution(3, width, side=7, stride=2),)
        return (
            Convolution(3, width // 2, side=3, stride=2),
            Convolution(width // 2, width // 2, side=3),
            Convolution(width // 2, width, side=3),
        )

    def stages(self) -> Iterator[tuple[Residual, ...]]:
        """Yields the blocks of each stage; the first of a stage may change width and size."""
        inputs = self.stem_width
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            first = self._block(inputs, width, stride=1 if stage == 0 else 2)
            yield (first, *[self._block(width, width, stride=1)] * (depth - 1))
            inputs = width

    def maps(self, image_size: int) -> Iterator[tuple[Convolution, int]]:
        """Yields every convolution with the side of its output map for an image size."""
        side = image_size // 2
        for convolution in self.stem:
            yield convolution, side
        side //= 2  # the pool's
        for blocks in self.stages():
            for block in blocks:
                for convolution in block.convolutions:
                    side //= convolution.stride * convolution.pool
                    yield convolution, side
                if block.shortcut is not None:
                    yield block.shortcut, side

    def _block(self, inputs: int, outputs: int, *, stride: int) -> Residual:
        convolutions: tuple[Convolution, ...]
        if self.attention_heads:
            inner = outputs // _BOTTLENECK
            convolutions = (
                Convolution(inputs, inner, side=1),
                Convolution(inner, inner, side=3),
                Convolution(inner, outputs, side=1, pool=stride),
            )
        elif self.bottleneck:
            inner = outputs // _BOTTLENECK
            first, second = (stride, 1) if self.downsample_in_bottleneck else (1, stride)
            convolutions = (
                Convolution(inputs, inner, side=1, stride=first),
                Convolution(inner, inner, side=3, stride=second),
                Convolution(inner, outputs, side=1),
            )
        else:
            convolutions = (
                Convolution(inputs, outputs, side=3, stride=stride),
                Convolution(outputs, outputs, side=3),
            )
        changes = inputs != outputs or stride != 1
        if not changes:
            return Residual(convolutions, None)
        halve = {"pool": stride} if self.attention_heads else {"stride": stride}
        return Residual(convolutions, Convolution(inputs, outputs, side=1, **halve))


# Fixed properties of this tower, by the keys of transformers' ResNetConfig; a file may repeat them.
_FIXED = {
    "model_type": "resnet",
    "num_channels": 3,
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
}
_KINDS = {"basic": False, "bottleneck": True}


def from_hf(vision: Mapping[str, Any]) -> ResNetConfig:
    """Reads a `vision_config` with the keys of transformers' ResNetConfig.

    Raises:
        ModelError: a key is missing or has an unsupported value.
    """
    for key, expected in _FIXED.items():
        if vision.get(key, expected) != expected:
            raise ModelError(
                f"vision_config in config.json: expected {key} {expected!r}, found {vision[key]!r}"
            )
    try:
        return ResNetConfig(
            widths=tuple(int(width) for width in vision["hidden_sizes"]),
            depths=tuple(int(depth) for depth in vision["depths"]),
            stem_width=int(vision["embedding_size"]),
            bottleneck=_KINDS[vision["layer_type"]],
            downsample_in_bottleneck=bool(vision.get("downsample_in_bottleneck", False)),
            attention_heads=int(vision.get("attention_heads", 0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            "vision_config in config.json: expected embedding_size, hidden_sizes, depths and a "
            f"layer_type of {' or '.join(_KINDS)}, found {dict(vision)}"
        ) from error


def to_hf(config: ResNetConfig) -> dict[str, Any]:
    """The content of a `vision_config`, which `from_hf` reads."""
    kinds = {bottleneck: name for name, bottleneck in _KINDS.items()}
    content = {
        "model_type": _FIXED["model_type"],
        "embedding_size": config.stem_width,
        "hidden_sizes": list(config.widths),
        "depths": list(config.depths),
        "layer_type": kinds[config.bottleneck],
        "downsample_in_bottleneck": config.downsample_in_bottleneck,
    }
    return content | ({"attention_heads": config.attention_heads} if config.attention_heads else {})
