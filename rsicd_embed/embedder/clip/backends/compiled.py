"""Where JAX keeps compiled programs between processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax


def keep_compiled_programs() -> None:
    """Turns on JAX's compilation cache on disk, unless the user has set it up already.

    It lies in `$XDG_CACHE_HOME/rsicd-embed/xla`; JAX_COMPILATION_CACHE_DIR moves it, and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    settings.update("jax_compilation_cache_dir", str(cache / "rsicd-embed" / "xla"))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)
