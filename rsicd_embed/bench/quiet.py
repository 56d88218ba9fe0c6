"""What else the machine did while a benchmark ran: whether its figures can be trusted."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")
_IDLE = (3, 4)  # of the columns of /proc/stat: idle, and waiting for a disk
_COUNTED = 8  # those after it are parts of the others


@dataclass(frozen=True)
class Watch:
    """Processor seconds until now.

    Attributes:
        all_s: that there were, on all processors together.
        busy_s: in which one was busy, with anything or for another virtual machine.
        own_s: of this process and of those that it began and that have ended.
    """

    all_s: float
    busy_s: float
    own_s: float

    @classmethod
    def begin(cls) -> Watch | None:
        """From now on; None where the system does not tell."""
        try:
            first = _STAT.read_text(encoding="ascii").splitlines()[0].split()
            ticks = [int(one) for one in first[1 : 1 + _COUNTED]]
            idle = sum(ticks[column] for column in _IDLE)
            tick_s = 1 / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return None
        own = os.times()
        return cls(sum(ticks) * tick_s, (sum(ticks) - idle) * tick_s, sum(own[:4]))

    def others_share(self) -> float | None:
        """What part of all processors anything else took since the beginning, from 0 to 1.

        None where the system does not tell, or where hardly any time has passed.
        """
        now = Watch.begin()
        if now is None or now.all_s <= self.all_s:
            return None
        others = (now.busy_s - self.busy_s) - (now.own_s - self.own_s)
        return round(min(1.0, max(0.0, others / (now.all_s - self.all_s))), 4)
