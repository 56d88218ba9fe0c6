"""LanceDB, without the half of its import that a local table never uses."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

# A client of catalogues on servers: 0.9 s of the 1.6 that importing LanceDB 0.40 takes here. Of it
# LanceDB itself needs no more than data types, which lie in modules of their own.
_CLIENT = "lance_namespace_urllib3_client"


def defer(name: str) -> None:
    """Makes importing a package do nothing until one of its own names is asked for.

    Its submodules can be imported as ever. Nothing is done where it is imported or missing.
    """
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    loader, module = spec.loader, importlib.util.module_from_spec(spec)
    names: dict[str, Any] = module.__dict__

    def load(attribute: str) -> Any:
        if attribute.startswith("__"):  # as those ask who look through all modules
            raise AttributeError(f"module {name!r} has no attribute {attribute!r}")
        names.pop("__getattr__", None)
        loader.exec_module(module)
        return getattr(module, attribute)

    names["__getattr__"] = load
    sys.modules[name] = module


defer(_CLIENT)

import lancedb  # noqa: E402

__all__ = ["lancedb"]
