"""Engines that run a CLIP's towers: JAX, OpenVINO and NumPy; their names and precisions."""

from __future__ import annotations

from typing import Literal, get_args

Backend = Literal["jax", "openvino", "numpy"]
"""The engine that a CLIP runs on."""
Precision = Literal["float32", "bfloat16"]
"""The floating-point type that an engine computes in."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
