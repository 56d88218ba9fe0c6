"""Which picture formats are read: always, with a plugin, or not at all."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

# Read by every installation, and the only ones that the server accepts. Decoders of other formats
# are rarely used, and a way in for an attacker; they are not tried.
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000")

# Read from files where the package that brings the decoder is installed: the extra `pictures`.
_PLUGINS = {"AVIF": "PIL._avif", "HEIF": "pillow_heif", "JXL": "pillow_jxl"}
_PLUGIN_SUFFIXES = {"AVIF": {".avif"}, "HEIF": {".heic", ".heif", ".hif"}, "JXL": {".jxl"}}


@cache
def has_plugin(kind: str) -> bool:
    """Whether "AVIF", "HEIF" or "JXL" can be read here; does not import the plugin."""
    try:
        return find_spec(_PLUGINS[kind]) is not None
    except ModuleNotFoundError:
        return False


@cache
def load_plugin(kind: str) -> None:
    """Registers the decoder of "AVIF", "HEIF" or "JXL" with Pillow."""
    if kind == "HEIF":
        import_module("pillow_heif").register_heif_opener()
    elif kind == "JXL":
        import_module("pillow_jxl")


def plugin_kind(data: bytes) -> str | None:
    """ "AVIF", "HEIF" or "JXL" for a file that begins like one."""
    if data[4:8] == b"ftyp":
        brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIF" if any(brand in brands for brand in (b"heic", b"heix", b"mif1")) else None
    return "JXL" if data.startswith((b"\xff\n", b"\0\0\0\x0cJXL \r\n\x87\n")) else None


def _suffixes_with_plugin(*, installed: bool) -> set[str]:
    kinds = [kind for kind in _PLUGINS if has_plugin(kind) is installed]
    return set().union(*(_PLUGIN_SUFFIXES[kind] for kind in kinds))


# The suffixes of files that a folder's pictures are made of.
SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".tif", ".tiff", ".webp"),
        *(".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
        *(".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx"),
        *_suffixes_with_plugin(installed=True),
    }
)

# The suffixes of files that are read where the extra `pictures` is installed, which it is not.
PLUGIN_SUFFIXES = frozenset(_suffixes_with_plugin(installed=False))

# The suffixes of files that are pictures, but are not read.
UNREAD_SUFFIXES = PLUGIN_SUFFIXES | {
    *(".tga", ".psd", ".psb", ".ico", ".icns", ".svg", ".eps", ".pcx", ".dds", ".exr", ".hdr"),
    *(".xcf", ".qoi", ".sgi", ".ras", ".dib", ".emf", ".wmf", ".jls", ".jxr", ".wdp", ".jpm"),
    *(".fits", ".xbm", ".xpm", ".pam"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef"),  # cameras
    *(".ecw", ".sid", ".ntf", ".nitf", ".img", ".gti", ".bil", ".bip", ".bsq", ".vrt"),  # rasters
}
