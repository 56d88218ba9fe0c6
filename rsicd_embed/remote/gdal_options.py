"""Addresses and environment variables of object stores and web servers in the words of GDAL.

GDAL reads scenes through clients of its own, which look for other variables.
"""

from __future__ import annotations

import os

from rsicd_embed.remote.failure_reasons import request_failure
from rsicd_embed.remote.object_client import is_anonymous, s3_endpoint
from rsicd_embed.remote.remote_url import RemoteUrl, given_url, is_remote

# Variables of obstore → options of GDAL.
_SAME = {
    "AZURE_STORAGE_ACCOUNT_NAME": "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT_KEY": "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_KEY": "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_TOKEN": "AZURE_STORAGE_ACCESS_TOKEN",
    "NETRC": "GDAL_HTTP_NETRC_FILE",
}


def gdal_options() -> dict[str, str]:
    """Options for the variables that are set; GDAL's own variables take precedence."""
    options = {to: value for name, to in _SAME.items() if (value := os.environ.get(name))}
    if is_anonymous():
        options |= dict.fromkeys((f"{it}_NO_SIGN_REQUEST" for it in ("AWS", "GS", "AZURE")), "YES")
    if endpoint := s3_endpoint():
        scheme, _, host = endpoint.partition("://")
        options["AWS_S3_ENDPOINT"] = host.rstrip("/")
        options["AWS_HTTPS"] = "NO" if scheme == "http" else "YES"
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
    return {name: value for name, value in options.items() if name not in os.environ}


def gdal_path(file: str) -> str:
    """The path of a file or public address; rasterio would cut keys of objects at `#`."""
    if is_remote(file) and not (url := RemoteUrl.parse(file)).is_web:
        return f"/vsi{url.scheme}/{url.container}/{url.key}"
    return given_url(file)


def store_failure(text: str, file: str) -> str | None:
    """The reason in an error of GDAL that quotes the document of an object store; None in others.

    Args:
        text: the error.
        file: the address that could not be read.
    """
    if not is_remote(file) or (url := RemoteUrl.parse(file)).is_web:
        return None
    failure = request_failure(text, f"{url.scheme}://{url.container}")
    return failure.reason if failure else None
