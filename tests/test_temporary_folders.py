"""Temporary folders are removed when a signal ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rsicd_embed.files import temporary_folder

PROGRAM = """
import signal, sys
from rsicd_embed.files import temporary_folder

with temporary_folder("outer-", sys.argv[1]) as outer, temporary_folder("inner-", outer) as folder:
    (folder / "file").write_text("x")
    print("ready", flush=True)
    signal.pause()
"""
ENDING = (signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("number", [*ENDING, signal.SIGINT])
def test_a_signal_ends_the_process(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(list(tmp_path.glob("outer-*/inner-*/file"))) == 1
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert list(tmp_path.iterdir()) == []


def test_signals_mean_the_same_afterwards(tmp_path: Path) -> None:
    def kept(*_: object) -> None:
        pass

    before = {number: signal.getsignal(number) for number in ENDING}
    own = signal.signal(signal.SIGHUP, kept)
    try:
        with temporary_folder(parent=tmp_path) as folder:
            assert folder.parent == tmp_path
            assert signal.getsignal(signal.SIGHUP) is kept  # a program's own handler stays
        assert signal.getsignal(signal.SIGHUP) is kept
    finally:
        signal.signal(signal.SIGHUP, own)
    assert {number: signal.getsignal(number) for number in ENDING} == before


def test_on_another_thread(tmp_path: Path) -> None:
    """Python sets handlers on the main thread only."""
    made: list[bool] = []

    def work() -> None:
        with temporary_folder(parent=tmp_path) as folder:
            made.append(folder.is_dir())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert made == [True]
    assert list(tmp_path.iterdir()) == []
