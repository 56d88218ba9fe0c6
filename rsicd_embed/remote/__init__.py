"""Objects of object stores and of the web: listing and reading, with retries."""

from rsicd_embed.remote.byte_budget import IN_FLIGHT, THREADS, Reservation
from rsicd_embed.remote.client import Content, RemoteObject
from rsicd_embed.remote.gdal_options import gdal_options, gdal_path, store_failure
from rsicd_embed.remote.remote_file import RemoteFile
from rsicd_embed.remote.remote_url import (
    RemoteUrl,
    address_of,
    given_url,
    is_remote,
    public_address,
)
from rsicd_embed.remote.transfer import (
    fetch,
    fetch_range,
    head,
    list_objects,
)

__all__ = [
    "IN_FLIGHT",
    "THREADS",
    "Content",
    "RemoteFile",
    "RemoteObject",
    "RemoteUrl",
    "Reservation",
    "address_of",
    "fetch",
    "fetch_range",
    "gdal_options",
    "gdal_path",
    "given_url",
    "head",
    "is_remote",
    "list_objects",
    "public_address",
    "store_failure",
]
