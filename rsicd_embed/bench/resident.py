"""The resident memory of this process, and its peak."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def resident(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes; the peak for both where there is no /proc."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """VmHWM starts anew, where that can be had."""
    with suppress(OSError):
        _RESET.write_text("5")
