"""Suppression of the tracebacks that Orbax's threads print."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


@contextmanager
def suppress_orbax_tracebacks(*, debug: bool) -> Iterator[None]:
    """Silences the hundreds of tracebacks that Orbax prints when a checkpoint cannot be written.

    The first error still reaches the caller. With `debug`, everything is printed.
    """
    if debug:
        yield
        return
    log, previous_hook = logging.getLogger("absl"), sys.unraisablehook
    level = log.level

    def hook(error: UnraisableHookArgs) -> None:
        # Raised by writes that TensorStore abandoned.
        if str(error.exc_value) != "Event loop is closed":
            previous_hook(error)

    log.setLevel(logging.CRITICAL)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        log.setLevel(level)
        sys.unraisablehook = previous_hook
