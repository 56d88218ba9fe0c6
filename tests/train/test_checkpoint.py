"""Checkpoints: exact, the newest intact one, and only of the same run."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rsicd_embed.errors import TrainError
from rsicd_embed.train.checkpoint import Checkpoints
from rsicd_embed.train.step import make_step

from .on_a_full_disk import SETTINGS
from .steps import batch, begin, config, flat, recipe


@pytest.fixture(scope="module")
def of() -> Any:
    return recipe(config(**SETTINGS))


@pytest.fixture(scope="module")
def step(of: Any) -> Any:
    return make_step(of)


def assert_equal(first: Any, other: Any) -> None:
    assert jax.tree.structure(first) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_resumed_run_is_exact(of: Any, step: Any, tmp_path: Path) -> None:
    state, losses = begin(of), []
    with Checkpoints(tmp_path / "c") as checkpoints:
        for number in range(4):
            if number == 2:
                checkpoints.save(state, 2)  # continues while it is written
            state, metrics = step(state, batch(number))
            losses.append(float(metrics["loss"]))
    with Checkpoints(tmp_path / "c") as checkpoints:
        again, done = checkpoints.restore(begin(of))
    assert done == int(again.step) == 2
    for number in (2, 3):
        again, metrics = step(again, batch(number))
        assert float(metrics["loss"]) == losses[number]
    assert_equal(again, state)


@pytest.fixture
def three(of: Any, tmp_path: Path) -> Path:
    """Checkpoints of one state as steps 1, 2 and 3, the last two of which are kept."""
    state = begin(of)
    with Checkpoints(tmp_path / "c", keep=2) as checkpoints:
        for done in (1, 2, 3):
            checkpoints.save(state, done)
    return tmp_path / "c"


def test_only_the_last_checkpoints_are_kept(three: Path, of: Any) -> None:
    assert {path.name for path in three.iterdir()} == {"2", "3"}
    like = begin(of)
    with Checkpoints(three) as checkpoints:
        restored, step = checkpoints.restore(like)
    assert step == 3
    assert_equal(restored, like)


def largest(folder: Path) -> Path:
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip(folder: Path) -> None:
    """Flips one bit of a parameter."""
    content = bytearray(largest(folder).read_bytes())
    content[len(content) // 2] ^= 1
    largest(folder).write_bytes(content)


def cut(folder: Path) -> None:
    content = largest(folder).read_bytes()
    largest(folder).write_bytes(content[: len(content) // 2])


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, cut])
def test_damaged_checkpoints_are_skipped(three: Path, of: Any, damage: Any) -> None:
    damage(three / "3")
    like = begin(of)
    with (
        Checkpoints(three) as checkpoints,
        pytest.warns(UserWarning, match=r"step 3 in .* is damaged.*resuming from that of step 2"),
    ):
        restored, step = checkpoints.restore(like)
    assert step == 2
    assert_equal(restored, like)
    damage(three / "2")
    refused = pytest.raises(TrainError, match=r"step 3 in .* damaged")
    with Checkpoints(three) as checkpoints, refused:
        checkpoints.restore(like)
    del refused, checkpoints
    gc.collect()  # the tasks that Orbax abandoned end in silence


@pytest.mark.parametrize(
    "other",
    [
        {"step__freeze": ["image"]},
        {"optimizer__name": "lion"},
        {"step__ema": 0.0},
        {"step__loss": "softmax"},
    ],
)
def test_checkpoints_of_another_run_are_refused(three: Path, other: dict[str, Any]) -> None:
    like = begin(recipe(config(**{**SETTINGS, **other})))
    with (
        Checkpoints(three) as checkpoints,
        pytest.raises(TrainError, match=r"another model or optimiser .* give another --out"),
    ):
        checkpoints.restore(like)


def test_full_disk(three: Path) -> None:
    command = [sys.executable, "-m", "tests.train.on_a_full_disk", str(three)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3 0\n"), done.stderr


def test_restore_without_checkpoints(of: Any, tmp_path: Path) -> None:
    like = begin(of)
    with Checkpoints(tmp_path / "c") as checkpoints:
        restored, step = checkpoints.restore(like)
    assert restored is like
    assert step == 0
    assert flat(restored).size


def test_damaged_checkpoints_are_replaced(three: Path, of: Any) -> None:
    """After falling back to step 2, step 3 is saved again."""
    flip(three / "3")
    with Checkpoints(three) as checkpoints:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state, _ = checkpoints.restore(begin(of))
        checkpoints.save(state, 3)
    with Checkpoints(three) as checkpoints:
        assert checkpoints.restore(begin(of))[1] == 3
