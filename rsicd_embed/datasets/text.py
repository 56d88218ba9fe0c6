"""Text of files and of JSON that a model, a hash and another file can take."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

from rsicd_embed.errors import DatasetError

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        DatasetError: the file cannot be read, or is in another encoding.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{path} cannot be read as text: {_no_utf8(line, error)}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read as text: {error}") from error
    if "\0" in content:
        line = content.count("\n", 0, content.index("\0")) + 1
        raise DatasetError(f"{path} cannot be read as text: {_found_nul(line)}")
    return content


def require_utf8(path: Path) -> None:
    """Reads a file of lines, since Arrow takes some that are no text.

    Raises:
        UnicodeError: a line is in another encoding.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if b"\0" in line and not line.startswith(_UTF16):
                raise UnicodeError(_found_nul(number))
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise UnicodeError(_no_utf8(number, error)) from None


def require_whole(found: Any, what: str) -> None:
    """JSON can spell half a character (`\\ud800`), which neither a model nor a file takes.

    Args:
        found: anything that JSON holds.
        what: what it is and whose, for the message, such as "a.jpg: expected captions".

    Raises:
        DatasetError: there is one in `found`.
    """
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"{what} in Unicode, found {error.reason} ({error.object[error.start]!a}); mend it"
        ) from error


def _found_nul(line: int) -> str:
    """A NUL is valid in UTF-8, but only UTF-16 without a mark has it in practice."""
    return (
        f"expected UTF-8, found a NUL character in line {line}, as in UTF-16; "
        "convert it, such as by: iconv -f utf-16le -t utf-8"
    )


def _no_utf8(line: int, error: UnicodeDecodeError) -> str:
    if error.object.startswith(_UTF16):
        return "expected UTF-8, found UTF-16; convert it, such as by: iconv -f utf-16 -t utf-8"
    return (
        f"expected UTF-8, found the byte 0x{error.object[error.start]:02x} in line {line}; "
        "convert it, such as by: iconv -f latin1 -t utf-8"
    )
