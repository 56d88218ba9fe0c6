"""Chooses the engine of `--backend auto` by the machine's devices and CPU features.

Nothing is timed. On x86-64 CPUs OpenVINO was faster than JAX with every model that was measured. It
is faster still in bfloat16 on CPUs with instructions for it. That is the default for ResNets, with
which fewer than one of a hundred hits change; transformers were not measured. See docs/models.md.
"""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from rsicd_embed.embedder.clip.backends import EmbedderEngine, Precision

_X86_64 = ("x86_64", "AMD64")


def engines(
    precision: Precision | None = None, *, resnet: bool = False
) -> Iterator[EmbedderEngine]:
    """The engines for this machine, fastest first; the last one runs every model.

    Args:
        precision: compute dtype; None for the engine's default.
        resnet: whether the image tower is a ResNet.
    """
    if has_accelerator():
        yield EmbedderEngine("jax", precision or "bfloat16")
        return
    if platform.machine() in _X86_64 and importlib.util.find_spec("openvino"):
        faster: Precision = "bfloat16" if resnet and cpu_has_bfloat16() else "float32"
        yield EmbedderEngine("openvino", precision or faster)
    yield EmbedderEngine("jax", precision or "float32")


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for products of bfloat16: AMX or AVX512-BF16.

    Known on Linux only; False elsewhere.
    """
    try:
        description = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    flags = next((line for line in description.splitlines() if line.startswith("flags")), "")
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags.split())


def has_accelerator() -> bool:
    """Whether JAX has a device other than the CPU.

    JAX is only imported where a plug-in for accelerators is installed, since that is slow.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu" or not (_has_plugin() or tpu_attached()):
        return False
    import jax

    keep_libtpu_quiet()
    return jax.default_backend() != "cpu"


@cache
def _has_plugin() -> bool:
    """Whether a plug-in for other devices than TPUs is installed: CUDA, ROCm, Metal and so on."""
    from importlib.metadata import entry_points  # slow to import

    if entry_points(group="jax_plugins"):
        return True
    plugins = importlib.util.find_spec("jax_plugins")
    folders = plugins.submodule_search_locations or () if plugins else ()
    return any(entry.is_dir() for folder in folders for entry in Path(folder).glob("[!_]*"))


def tpu_attached() -> bool:
    """Whether libtpu is installed and this machine has a TPU's device files."""
    if importlib.util.find_spec("libtpu") is None:
        return False
    devices = (*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*"))
    return bool(devices)


def keep_libtpu_quiet() -> None:
    """Makes JAX leave libtpu alone on a machine without a TPU, where it prints errors.

    Has no effect if the user selects platforms with JAX_PLATFORMS or in `jax.config`.
    """
    import jax

    settings: Any = jax.config
    if settings.jax_platforms or tpu_attached() or importlib.util.find_spec("libtpu") is None:
        return
    if not _has_plugin():
        settings.update("jax_platforms", "cpu")
