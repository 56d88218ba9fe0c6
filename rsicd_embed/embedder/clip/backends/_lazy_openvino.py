"""OpenVINO as this process may use it: without telemetry, and with one `Core`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """OpenVINO tells its makers of each import, from a forked process: not in our users' name."""
    modules: dict[str, Any] = sys.modules
    held = modules.get("openvino_telemetry")
    modules["openvino_telemetry"] = None  # its import then fails, which OpenVINO is ready for
    try:
        yield
    finally:
        del modules["openvino_telemetry"]
        if held is not None:
            modules["openvino_telemetry"] = held


with _without_telemetry():
    import openvino as ov
    from openvino import opset13 as op

__all__ = ["core", "op", "ov"]


@cache
def core() -> Any:
    """The `openvino.Core` that all models of this process are compiled by.

    A Core's CPU plug-in gives the thread a stack for signals, and puts the former one back when it
    goes. With two Cores that go in the order they came, what it puts back is gone: the next
    SIGTERM, or Ctrl-C, then ends the process with a segmentation fault (OpenVINO 2026.4).
    """
    return ov.Core()
