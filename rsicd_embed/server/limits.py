"""How much a request may ask for, and a client may take up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is refused beyond.

    Attributes:
        text_chars: of a text; models read far less.
        id_chars: of an id.
        hits: asked for at once.
        filters: conditions in a search.
        against: texts that a patch is compared with.
        body_bytes: of a request that brings no picture.
        upload_bytes: of one that does.
        upload_pixels: of a picture that is brought; 120 MB as RGB.
        file_bytes: of a stored picture's file.
        patches: of a picture that is searched.
        thumbnail_side: of a picture that is shown, in pixels.
        jobs: pictures that wait to be decoded or searched.
        connections: open at once; each takes a file descriptor, of which there are often 1,024.
        head_bytes: of a request's line and headers.
        head_s: for a request's line and headers, in seconds.
        body_s: for the rest of a request.
        silence_s: without a byte of a request, or while a client reads nothing of its response.
    """

    text_chars: int = 1000
    id_chars: int = 4096
    hits: int = 200
    filters: int = 16
    against: int = 20
    body_bytes: int = 64 * 1024
    upload_bytes: int = 20 * 1024 * 1024
    upload_pixels: int = 40_000_000
    file_bytes: int = 256 * 1024 * 1024
    patches: int = 2000
    thumbnail_side: int = 1600
    jobs: int = 64
    connections: int = 512
    head_bytes: int = 64 * 1024
    head_s: float = 10.0
    body_s: float = 120.0
    silence_s: float = 10.0


LIMITS = Limits()
