"""NMSLib, without the notice that its binary prints when it is imported.

Plain NMSLib's wheels, the only ones above Python 3.12, use no instructions beyond SSE2, and say so
from C++ on file descriptor 2, where neither `sys.stderr` nor `logging` can hold it back.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_NOTICE = re.compile(
    rb"Your CPU supports instructions that this binary was not compiled to use: *([^\n]*)\n"
    rb"(?:For maximum performance[^\n]*\n)?(?:pip install [^\n]*\n?)?"
)
_BUILD = (
    "pip install 'setuptools<81' wheel pybind11 numpy, then "
    "pip install --no-build-isolation --no-binary nmslib --force-reinstall --no-deps nmslib"
)


@contextmanager
def _captured_stderr(chunks: list[bytes]) -> Iterator[None]:
    """Appends what is written to file descriptor 2 to `chunks`, of all threads.

    Does nothing where that descriptor is closed, or no temporary file can be made.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115
        terminal = os.dup(2)
    except OSError:
        yield
        return
    with file:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            file.seek(0)
            chunks.append(file.read())


def split_notice(text: bytes) -> tuple[bytes, str]:
    """Separates NMSLib's notice from what others wrote meanwhile.

    Returns:
        The text without the notice, and the instructions that the notice names; empty without one.

    Example:
        >>> split_notice(
        ...     b"a\\nYour CPU supports instructions that this binary was not compiled to use: "
        ...     b"AVX AVX2\\nFor maximum performance, build it\\npip install nmslib\\nb\\n"
        ... )
        (b'a\\nb\\n', 'AVX AVX2')
    """
    notice = _NOTICE.search(text)
    return _NOTICE.sub(b"", text), notice[1].decode().strip() if notice else ""


def _advice(unused: str) -> str | None:
    if not unused:
        return None
    return (
        f"this NMSLib wheel does not use the processor's {', '.join(unused.split())}; a build from "
        f"source searches about 1.37 times as fast: {_BUILD}"
    )


_written: list[bytes] = []
with _captured_stderr(_written):  # once, when this module is first imported
    import nmslib
_others, _unused = split_notice(b"".join(_written))
if _others:
    os.write(2, _others)

# How to get a faster NMSLib; None where the installed one uses all the processor has.
ADVICE = _advice(_unused)

__all__ = ["ADVICE", "nmslib"]
