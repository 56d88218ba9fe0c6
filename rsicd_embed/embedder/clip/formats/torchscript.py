"""Tensors of TorchScript archives, such as OpenAI's original CLIP files, without executing them."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

from rsicd_embed.embedder.clip.config import Activation
from rsicd_embed.embedder.clip.tensor_unpickler import Buffers, TensorsOnly

# In the archive's source code, which is only read.
_QUICK_GELU = re.compile(r"torch\.sigmoid\(torch\.mul\(\w+, (?:CONSTANTS\.|1\.702)|QuickGELU")
_GELU = re.compile(r"torch\.gelu\(")


class _ScriptModule:
    """An inert stand-in for a module; unpickling sets its attributes."""

    attributes: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _ScriptUnpickler(TensorsOnly):
    """Also constructs `_ScriptModule` in place of the archive's classes."""

    def find_class(self, module: str, name: str) -> Any:
        """Maps a name in the pickle to a safe replacement."""
        if module == "__torch__" or module.startswith("__torch__."):
            return _ScriptModule
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        return super().find_class(module, name)


def is_archive(archive: zipfile.ZipFile) -> bool:
    """Whether a zip is a TorchScript archive rather than what torch.save writes."""
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read(archive: zipfile.ZipFile, root: str, buffers: Buffers) -> dict[str, Any]:
    """The parameters and buffers of an archive's modules, by name."""
    with archive.open(f"{root}data.pkl") as stream:
        top = _ScriptUnpickler(stream, buffers).load()
    tensors: dict[str, Any] = {}

    def walk(module: Any, prefix: str) -> None:
        for name, value in module.attributes.items():
            if isinstance(value, _ScriptModule):
                walk(value, f"{prefix}{name}.")
            elif hasattr(value, "__array__"):
                tensors[prefix + name] = value

    if isinstance(top, _ScriptModule):
        walk(top, "")
    return tensors


def activation(path: Path) -> Activation | None:
    """The activation in the source code of an archive; None for other files, or if unclear."""
    try:
        with zipfile.ZipFile(path) as archive:
            if not is_archive(archive):
                return None
            sources = [name for name in archive.namelist() if name.endswith(".py")]
            code = "\n".join(archive.read(name).decode("utf-8", "replace") for name in sources)
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, NotImplementedError):
        return None
    quick, exact = bool(_QUICK_GELU.search(code)), bool(_GELU.search(code))
    if quick == exact:
        return None
    return "quick_gelu" if quick else "gelu"
