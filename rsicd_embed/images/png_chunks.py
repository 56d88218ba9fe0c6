"""PNG files without what is not part of the picture."""

from __future__ import annotations

import struct

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NO_PIXELS = {b"iCCP", b"tEXt", b"zTXt", b"iTXt"}


def without_text(data: bytes) -> bytes:
    """A PNG without its texts and colour profile, which are not decompressed; others as they are.

    Pillow refuses a picture whose texts or profile are larger than 1 MB once decompressed.
    """
    if not data.startswith(_SIGNATURE):
        return data
    parts, start = [_SIGNATURE], len(_SIGNATURE)
    while start + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if kind not in _NO_PIXELS:
            parts.append(data[start:end])
        start = end
    return b"".join(parts)
