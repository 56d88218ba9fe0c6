"""Image reading: any file, address, bytes or Pillow image to 8-bit RGB."""

from rsicd_embed.images.archived_images import (
    TableCell,
    TarMember,
    container_of,
    image_field,
    open_table,
)
from rsicd_embed.images.bit_depth import STRETCH_RULE, Stretch
from rsicd_embed.images.picture import (
    FORMATS,
    MAX_PIXELS,
    PLUGIN_SUFFIXES,
    SUFFIXES,
    UNREAD_SUFFIXES,
    Header,
    ImageLike,
    Picture,
    as_stored,
    read_address,
    read_bytes,
    read_header,
    read_picture,
    read_rgb,
)
from rsicd_embed.images.scene_windows import SceneWindow, file_of
from rsicd_embed.images.stacked_scenes import stack_address

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PLUGIN_SUFFIXES",
    "STRETCH_RULE",
    "SUFFIXES",
    "UNREAD_SUFFIXES",
    "Header",
    "ImageLike",
    "Picture",
    "SceneWindow",
    "Stretch",
    "TableCell",
    "TarMember",
    "as_stored",
    "container_of",
    "file_of",
    "image_field",
    "open_table",
    "read_address",
    "read_bytes",
    "read_header",
    "read_picture",
    "read_rgb",
    "stack_address",
]
