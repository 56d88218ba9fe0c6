"""torchvision's registry wheel beside a CPU build of torch: what lets it be imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

_KEPT: list[Any] = []


def mend_torchvision() -> None:
    """Lets torchvision's registry wheel be imported beside a CPU build of torch.

    That build lacks operators which the wheel refers to; declaring them is enough for transforms
    and for transformers, whose models cannot be imported while torchvision cannot.
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
