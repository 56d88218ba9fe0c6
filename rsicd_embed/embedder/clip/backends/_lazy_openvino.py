"""OpenVINO without telemetry, and with a single `Core` per process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Disables OpenVINO's telemetry, which reports each import from a forked process."""
    modules: dict[str, Any] = sys.modules
    previous = modules.get("openvino_telemetry")
    modules["openvino_telemetry"] = None  # makes its import fail, which OpenVINO handles
    try:
        yield
    finally:
        del modules["openvino_telemetry"]
        if previous is not None:
            modules["openvino_telemetry"] = previous


with _without_telemetry():
    import openvino as ov
    from openvino import opset13 as op

__all__ = ["core", "op", "ov"]


@cache
def core() -> Any:
    """The `openvino.Core` that compiles all models of this process.

    A Core's CPU plug-in installs a signal stack for the thread, and restores the previous one when
    it is destroyed. If two Cores are destroyed in the order of their creation, the second restores
    a stack that no longer exists, and the next SIGTERM or Ctrl-C ends the process with a
    segmentation fault (OpenVINO 2026.4).
    """
    return ov.Core()
