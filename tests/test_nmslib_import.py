"""The notice that NMSLib prints on import is suppressed; all other output is not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsicd_embed.stores import _lazy_nmslib

from .helpers import SCHEMES, filled, run

# A module that writes to file descriptor 2 when it is imported, as the wheel's C++ does.
WHEEL = """
import os
os.write(2, b"another thread's line\\n")
os.write(2, b"Your CPU supports instructions that this binary was not compiled to use: AVX AVX2\\n"
    b"For maximum performance, you can install NMSLIB from sources \\n"
    b"pip install --no-binary :all: nmslib\\n")
"""
IMPORT = "from rsicd_embed.stores._lazy_nmslib import ADVICE; print(ADVICE)"


def imported(folder: Path, wheel: str, shell: str = "") -> tuple[str, str]:
    """Runs a process that imports `wheel` as nmslib; returns stdout and stderr."""
    (folder / "nmslib.py").write_text(wheel)
    command = ["/bin/sh", "-c", f'exec "$0" "$@" {shell}', sys.executable, "-c", IMPORT]
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout, done.stderr


def test_only_the_notice_is_suppressed(tmp_path: Path) -> None:
    stdout, stderr = imported(tmp_path, WHEEL)
    assert stderr == "another thread's line\n"
    assert "does not use the processor's AVX, AVX2; a build from source" in stdout
    assert "pip install --no-build-isolation --no-binary nmslib" in stdout


def test_no_advice_without_a_notice(tmp_path: Path) -> None:
    assert imported(tmp_path, "") == ("None\n", "")


def test_import_without_stderr(tmp_path: Path) -> None:
    assert imported(tmp_path, "", shell="2>&-") == ("None\n", "")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_info_includes_the_advice(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lazy_nmslib, "ADVICE", "build it")
    uri = filled(f"{scheme}:{tmp_path / 'store'}")
    expected = "build it" if scheme == "nmslib" else None
    assert run("info", "--store", uri, "--json").document["advice"] == expected
    lines = run("info", "--store", uri).stdout.splitlines()
    assert [line for line in lines if line.startswith("advice")] == (
        ["advice       build it"] if expected else []
    )
