"""What libraries print of an error that a command tells in one line."""

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
    """Where a disk takes no checkpoint, Orbax's threads print tracebacks by the hundred.

    The first error comes to the caller all the same; with `debug` everything is shown.
    """
    if debug:
        yield
        return
    log, shown = logging.getLogger("absl"), sys.unraisablehook
    level = log.level

    def hook(error: UnraisableHookArgs) -> None:
        # Of writes that were given up: TensorStore has nobody else to tell it to.
        if str(error.exc_value) != "Event loop is closed":
            shown(error)

    log.setLevel(logging.CRITICAL)
    sys.unraisablehook = hook
    try:
        yield
    finally:
        log.setLevel(level)
        sys.unraisablehook = shown
