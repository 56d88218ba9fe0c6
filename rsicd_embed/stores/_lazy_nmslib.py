"""NMSLib, without the notice that its binary prints on import.

The `nmslib` wheels, the only ones above Python 3.12, use no instructions beyond SSE2. They print
that from C++ to file descriptor 2, which neither `sys.stderr` nor `logging` can intercept.
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
    """Appends what all threads write to file descriptor 2 to `chunks`.

    Does nothing if that descriptor is closed, or a temporary file cannot be created.
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
    """Separates NMSLib's notice from the output of others.

    Returns:
        The text without the notice, and the instructions named in the notice, or "".

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

# How to get a faster NMSLib; None if the installed one uses all instructions of the processor.
ADVICE = _advice(_unused)

__all__ = ["ADVICE", "nmslib"]
