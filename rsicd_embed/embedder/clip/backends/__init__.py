"""Engines that a CLIP's towers run on: JAX, OpenVINO, NumPy."""

from __future__ import annotations

from typing import Literal, get_args

Backend = Literal["jax", "openvino", "numpy"]
Precision = Literal["float32", "bfloat16"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
