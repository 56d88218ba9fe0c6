"""A program that writes checkpoints to a full disk; Orbax's failing threads die with it."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest

from rsicd_embed.errors import StoreError
from rsicd_embed.train.checkpoint import Checkpoints

from .steps import begin, config, recipe

SETTINGS = {"step__ema": 0.9, "step__freeze": ["text"], "step__loss": "sigmoid"}


def main() -> None:
    """Reads from argv the folder with checkpoints 1 to 3 of the initial state."""
    folder = Path(sys.argv[1])
    state = begin(recipe(config(**SETTINGS)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Checkpoints(folder) as checkpoints:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        checkpoints.save(state, 4)
        with pytest.raises(StoreError, match=r"cannot write a checkpoint .* File too large"):
            checkpoints.save(state, 5)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with Checkpoints(folder) as checkpoints:
        restored, step = checkpoints.restore(state)
    sys.stdout.write(f"{step} {int(restored.step)}\n")


if __name__ == "__main__":
    main()
