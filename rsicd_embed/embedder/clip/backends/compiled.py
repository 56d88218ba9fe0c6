"""Where JAX keeps compiled programs between processes."""

from __future__ import annotations

from typing import Any

import jax

from rsicd_embed.files import cache_folder


def keep_compiled_programs() -> None:
    """Turns on JAX's compilation cache on disk, unless the user has set it up already.

    It lies in `$XDG_CACHE_HOME/rsicd-embed/xla`; JAX_COMPILATION_CACHE_DIR moves it, and
    JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
    """
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is not None:
        return
    settings.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    settings.update("jax_persistent_cache_min_compile_time_secs", 0.1)
