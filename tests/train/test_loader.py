"""The loader: the same batches from any step on, by threads and by processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsicd_embed.errors import TrainError
from rsicd_embed.train.input.captioned_images import CaptionedImages

from .captioned_images import examples, opened, same

CAPTIONS = [["a", "b"], ["c"], ["a", "d", "e"], ["f"], ["g", "h"], ["i"], ["j"]]
WEIGHTS = [1.0, 0.5, 0.5, 2.0, 1.0, 1.0, 1.0]


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Whole:
    """A split and all batches of its first epochs."""

    def __init__(self, images: CaptionedImages) -> None:
        self.images = images
        self.epochs = [list(images.epoch(number, 2)) for number in range(4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    split = examples(tmp_path_factory.mktemp("images"), CAPTIONS)
    images = opened(split, weights=WEIGHTS, class_captions=0.3)
    return Whole(images)


visits = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 4))


@settings(max_examples=20)
@given(st.lists(visits, min_size=1, max_size=6))
def test_batches_from_any_step(whole: Whole, visits: list[tuple[int, int, int]]) -> None:
    """Batches do not depend on what was read before."""
    assert whole.images.steps(2) == 3
    for number, start, most in visits:
        wanted = whole.epochs[number][start:]
        batches = list(islice(whole.images.epoch(number, 2, start), most))
        assert len(batches) == min(most, len(wanted))
        for batch, expected in zip(batches, wanted, strict=False):
            same(batch, expected)


@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(
    ("engine", "counts"),
    [("none", (0, 2)), pytest.param("torchvision", (0, 1, 2), marks=pytest.mark.slow)],
)
def test_workers_do_not_change_the_batches(
    tmp_path: Path, engine: str, counts: tuple[int, ...]
) -> None:
    split = examples(tmp_path, CAPTIONS)
    runs = []
    for workers in counts:
        with opened(split, weights=WEIGHTS, engine=engine, workers=workers, cache="disk") as images:
            batches = [*images.epoch(0, 3, 1)]
            for process in multiprocessing.active_children():  # like Ctrl-C in a terminal
                os.kill(process.pid or 0, signal.SIGINT)
            batches += images.epoch(1, 3)
            runs.append(batches)
            for number in range(2, 20):
                assert len(list(images.epoch(number, 3))) == 2
            assert len(multiprocessing.active_children()) == workers  # they live across epochs
    assert not multiprocessing.active_children()
    assert len(runs[0]) == 3
    for batches in runs[1:]:
        for batch, expected in zip(runs[0], batches, strict=True):
            same(batch, expected)


def test_errors_in_a_worker_are_reported(tmp_path: Path) -> None:
    split = examples(tmp_path, CAPTIONS)
    with opened(split, workers=1, cache="none") as images:
        split[3].path.write_bytes(b"rubbish")
        with pytest.raises(TrainError, match=r"beach_3\.png: not an image"):
            list(images.epoch(0, 2))


def test_a_killed_worker_is_reported(tmp_path: Path) -> None:
    with opened(examples(tmp_path, CAPTIONS), workers=1, cache="none") as images:
        batches = (batch for number in range(99) for batch in images.epoch(number, 2))
        next(batches)
        for process in multiprocessing.active_children():
            process.kill()
        with pytest.raises(TrainError, match="a process that prepares batches was killed"):
            list(batches)


A_RUN = """
import sys
import numpy as np
from rsicd_embed.train.input.loader import Stream

class Numbers:
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return (np.array(index),)

if __name__ == "__main__":
    stream = Stream(Numbers(), 0, 2)
    next(stream)
    print("begun", flush=True)
    sys.stdin.read()
"""


def test_workers_end_with_a_run_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(A_RUN)
    program = [sys.executable, str(tmp_path / "run.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"begun\n"
        run.kill()
        assert run.communicate(timeout=600) == (b"", None)  # no process keeps its output open


def test_workers_are_started_only_if_useful(tmp_path: Path) -> None:
    with opened(examples(tmp_path, CAPTIONS), workers=None) as images:
        next(images.epoch(0, 2))
        assert not multiprocessing.active_children()


def test_a_process_gets_its_own_rows(tmp_path: Path) -> None:
    with opened(examples(tmp_path, CAPTIONS)) as images:
        (batch,) = images.epoch(0, 7)
    whole = batch.arrays(np.arange(7))
    assert set(whole) == {"pixels", "tokens", "groups"}
    assert whole["pixels"] is batch.pixels
    own = np.array([1, 4])
    for name, array in batch.arrays(own).items():
        np.testing.assert_array_equal(array, whole[name][own])
