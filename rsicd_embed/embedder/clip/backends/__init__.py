"""Engines that a CLIP's towers run on: JAX, OpenVINO, NumPy."""
