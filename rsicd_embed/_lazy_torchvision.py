"""Import of torchvision's PyPI wheel beside a CPU build of torch."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_KEPT: list[Any] = []


def mend_torchvision() -> None:
    """Makes torchvision's PyPI wheel importable beside a CPU build of torch.

    The CPU build lacks two operators that the wheel refers to. Declaring them is enough for
    transforms, and for transformers, which imports torchvision.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is None:
        return
    library: Any = importlib.import_module("torch.library")
    operators = library.Library("torchvision", "FRAGMENT")
    _KEPT.append(operators)
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in ("nms", "qnms"):
            operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
