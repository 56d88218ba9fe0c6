"""How a tensor is stored in a format: as it is, transposed, fused with others or unfolded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Tensors = Mapping[str, np.ndarray]
# Sizes of axes; None for any size.
StoredShape = tuple[int | None, ...]

_EPS = 1e-5  # default of PyTorch's batch norms


class Rule(Protocol):
    """How a tensor of a given shape is stored."""

    def stored(self, shape: tuple[int, ...]) -> dict[str, StoredShape]:
        """Names and shapes of the tensors that `read` needs."""
        ...

    def read(self, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor, from a checkpoint that has all of `stored`."""
        ...

    def write(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays to store; those of the same name are concatenated in order."""
        ...


@dataclass(frozen=True)
class Plain:
    """Stored as it is, transposed, or with leading axes of length one."""

    name: str
    transposed: bool = False
    axes: int = 0

    def stored(self, shape: tuple[int, ...]) -> dict[str, StoredShape]:
        """See `Rule`."""
        return {self.name: shape[::-1] if self.transposed else (1,) * self.axes + shape}

    def read(self, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
        """See `Rule`."""
        tensor = tensors[self.name]
        return tensor.T if self.transposed else tensor.reshape(shape)

    def write(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """See `Rule`."""
        shape = (1,) * self.axes + tensor.shape
        return {self.name: tensor.T if self.transposed else tensor.reshape(shape)}


@dataclass(frozen=True)
class Fused:
    """A third of a fused projection of queries, keys and values."""

    name: str
    part: int

    def stored(self, shape: tuple[int, ...]) -> dict[str, StoredShape]:
        """See `Rule`."""
        return {self.name: (3 * shape[0], *shape[1:])}

    def read(self, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
        """See `Rule`."""
        return tensors[self.name][self.part * shape[0] : (self.part + 1) * shape[0]]

    def write(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """See `Rule`."""
        return {self.name: tensor}


@dataclass(frozen=True)
class FoldedConvolution:
    """The kernel or bias of a convolution without bias and the batch norm after it."""

    convolution: str
    norm: str
    bias: bool

    def stored(self, shape: tuple[int, ...]) -> dict[str, StoredShape]:
        """See `Rule`."""
        parts = ("weight", "bias", "running_mean", "running_var")
        norm: dict[str, StoredShape] = {f"{self.norm}.{part}": shape[:1] for part in parts}
        return norm if self.bias else {f"{self.convolution}.weight": shape, **norm}

    def read(self, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
        """See `Rule`."""
        weight, bias, mean, var = (
            tensors[f"{self.norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = (weight / np.sqrt(var + _EPS)).astype(np.float32)
        if self.bias:
            return (bias - mean * scale).astype(np.float32)
        kernel = tensors[f"{self.convolution}.weight"].astype(np.float32)
        folded: np.ndarray = kernel * scale[:, None, None, None]
        return folded

    def write(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """See `Rule`."""
        if not self.bias:
            return {f"{self.convolution}.weight": tensor}
        ones = np.ones_like(tensor)
        return {
            f"{self.norm}.weight": ones,
            f"{self.norm}.bias": tensor,
            f"{self.norm}.running_mean": np.zeros_like(tensor),
            f"{self.norm}.running_var": ones - ones.dtype.type(_EPS),
            f"{self.norm}.num_batches_tracked": np.zeros((), np.int64),
        }


@dataclass(frozen=True)
class Positions:
    """A BERT's position embeddings from row `first`, with those of the only token type added."""

    name: str
    types: str
    first: int
    rows: int  # `write` fills these with zeros

    def stored(self, shape: tuple[int, ...]) -> dict[str, StoredShape]:
        """See `Rule`."""
        return {self.name: (None, shape[1]), self.types: (None, shape[1])}

    def read(self, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
        """See `Rule`."""
        rows = tensors[self.name][self.first : self.first + shape[0]].astype(np.float32)
        positions: np.ndarray = rows + tensors[self.types][0].astype(np.float32)
        return positions

    def write(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """See `Rule`."""
        after = self.rows - self.first - len(tensor)
        padded = np.pad(tensor, ((self.first, max(0, after)), (0, 0)))
        types = np.zeros((1 if self.first else 2, tensor.shape[1]), tensor.dtype)
        return {self.name: padded, self.types: types}


@dataclass(frozen=True)
class LongPositions:
    """Long-CLIP's position embeddings (arXiv:2403.15378): the first 20 rows, then the others."""

    name: str
    others: str
    first: int = 20

    def stored(self, shape: tuple[int, ...]) -> dict[str, StoredShape]:
        """See `Rule`."""
        return {self.name: shape, self.others: shape}

    def read(self, tensors: Tensors, shape: tuple[int, ...]) -> np.ndarray:
        """See `Rule`."""
        return np.concatenate(
            [tensors[self.name][: self.first], tensors[self.others][self.first :]]
        )

    def write(self, tensor: np.ndarray) -> dict[str, np.ndarray]:
        """See `Rule`."""
        return {self.name: tensor, self.others: tensor}


# Maps the names of `tensors.shapes` to rules.
Naming = Callable[[str], Rule]
