"""Engines that run a CLIP's towers: JAX, OpenVINO and NumPy; their names and precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Backend = Literal["auto", "jax", "openvino", "numpy"]
"""The engine that a CLIP runs on; "auto" for the fastest one on this machine."""
Precision = Literal["float32", "bfloat16"]
"""The floating-point type that an engine computes in."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class EmbedderEngine:
    """An engine, and the precision that it computes in."""

    backend: Literal["jax", "openvino", "numpy"]
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"
