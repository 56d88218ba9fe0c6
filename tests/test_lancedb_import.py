"""The lazy import of LanceDB skips unused modules until they are needed."""

from __future__ import annotations

from .helpers import runs_well

CLIENT = "lance_namespace_urllib3_client"


def test_catalogue_client_is_imported_on_first_use() -> None:
    runs_well(
        "import sys\n"
        "from rsicd_embed.stores.lancedb._lazy_lancedb import lancedb\n"
        f"assert not any(name.startswith('{CLIENT}.api') for name in sys.modules)\n"
        f"import {CLIENT} as client\n"
        "assert not hasattr(client, '__wrapped__')\n"
        f"assert not any(name.startswith('{CLIENT}.api') for name in sys.modules)\n"
        f"from {CLIENT} import ApiClient\n"
        f"assert ApiClient.__module__ == '{CLIENT}.api_client', ApiClient.__module__\n"
        "assert client.TableApi.__name__ == 'TableApi'\n"
    )


def test_earlier_import_is_kept() -> None:
    runs_well(
        f"import {CLIENT} as client\n"
        "table = client.TableApi\n"
        "import rsicd_embed.stores.lancedb._lazy_lancedb\n"
        "assert client.TableApi is table\n"
    )


def test_missing_package() -> None:
    runs_well(
        "import sys\n"
        "from rsicd_embed.stores.lancedb._lazy_lancedb import defer\n"
        "defer('no_such_package')\n"
        "assert 'no_such_package' not in sys.modules\n"
    )
