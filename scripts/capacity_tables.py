"""Figures in docs/capacity.md: what one process takes, and the arithmetic to a billion tiles."""

from __future__ import annotations

import math
from typing import Any

from scripts.readme_tables import record

_MILLION = 10**6
_PROJECTED = (10**7, 10**8, 10**9)
_DAY_S = 86_400
# See "Memory" in docs/growth.md.
_SEARCH_BYTES_PER_ROW = 17
_INT8_BYTES_PER_NUMBER = 1


# Model and engine → record and candidate of its ingest.
_INGESTS = {
    "bundled, float32": ("ingest-bundled-224", "ingest lancedb"),
    "bundled, bfloat16": ("ingest-bundled-bfloat16", "ingest exact"),
    "ViT-B/32, float32": ("ingest-vit-b-32", "ingest exact"),
}
_FASTEST = "bundled, bfloat16"


def _images_per_s(engine: str) -> float:
    name, candidate = _INGESTS[engine]
    per_s: float = record(name)["candidates"][candidate]["per_s"]
    return per_s


def measured() -> str:
    """What a million tiles cost one process."""
    run = record("growth-1m")
    factor = _MILLION / run["vectors"]["rows"]
    built = run["contenders"]["lancedb"]
    searched = run["states"]["optimized"]["contenders"]["lancedb"]
    upsert, optimize = built["upsert"], built["optimize"]
    images = record("ingest-bundled-224")
    image_bytes = images["file_bytes"] / images["images"]
    lines = ["| a million tiles | one process on two cores | record |", "| --- | --- | --- |"]
    for engine, (name, _) in _INGESTS.items():
        per_s = _images_per_s(engine)
        lines.append(
            f"| read, decode, embed and store ({engine}) | {_MILLION / per_s / 3600:.1f} h at "
            f"{per_s:.1f} images/s | {name} |"
        )
    ratio = record("remote")["ratios"][0]["ratio"]
    p50_ms = searched["single"]["p50_ns"] / 1e6
    costs = {
        "write vectors that exist already": f"{upsert['s'] * factor:.0f} s at "
        f"{upsert['rows_per_s']:,.0f} rows/s, {max(upsert['peak_bytes']) / 1e6:,.0f} MB",
        "compact and index": f"{optimize['s'] * factor:.0f} s, "
        f"{max(optimize['peak_bytes']) / 1e6:,.0f} MB",
        "disk of the store": f"{built['disk_bytes'] * factor / 1e9:.2f} GB",
        "memory of a searching process": f"{searched['peak_bytes'] / 1e6:,.0f} MB",
        "one search after another": f"{1000 / p50_ms:.0f} per second (median {p50_ms:.1f} ms)",
        "searches in batches": f"{searched['batch']['per_s']:.0f} per second",
    }
    lines += [
        f"| the same from a bucket, 50 ms to the first byte | {ratio:.2f} of the rate | remote |",
        f"| disk of the images (JPEG, 224 px, generated) | {image_bytes * _MILLION / 1e9:.1f} GB | "
        "ingest-bundled-224 |",
        *(f"| {what} | {cost} | growth-1m |" for what, cost in costs.items()),
    ]
    return "\n".join(lines) + "\n"


def requests() -> str:
    """Requests per second of one server process."""
    run = record("serve")
    rates, cpu_ms = run["candidates"], run["cpu_ms_per_search"]["batched"]
    many = f"{run['settings']['clients']} clients, batched"
    return (
        f"One `serve` process answers {rates[many]['per_s']:.0f} text searches per second from "
        f"{run['settings']['clients']} clients and {rates['1 client, batched']['per_s']:.0f} from "
        f"one (median {run['latency_ms']['batched']['p50']:.1f} ms), over "
        f"{run['settings']['rows']:,} rows in an `{run['settings']['scheme']}:` store\n(record "
        f"serve; the clients shared its two cores). A search takes {cpu_ms:.1f} ms of CPU time, so "
        f"a core alone cannot answer more than 1000 / {cpu_ms:.2f} = {1000 / cpu_ms:.0f} per "
        "second.\n"
    )


def _time(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 2 * _DAY_S else f"{seconds / _DAY_S:,.0f} days"


def projected() -> str:
    """The arithmetic to a billion tiles, from the largest recorded run."""
    run = record("growth-5m")
    rows, dim = run["vectors"]["rows"], run["vectors"]["dim"]
    built: Any = run["contenders"]["lancedb"]
    per_s = _images_per_s(_FASTEST)
    lines = [
        "| tiles | embed, one process | processes to embed in a day | disk | write | optimize, at "
        "least | memory to search: table | int8 copy |",
        "| --- " * 8 + "|",
    ]
    for count in _PROJECTED:
        factor = count / rows
        cells = [
            f"{count:,}",
            _time(count / per_s),
            f"{math.ceil(count / (per_s * _DAY_S)):,}",
            f"{built['disk_bytes'] * factor / 1e9:,.0f} GB",
            _time(built["upsert"]["s"] * factor),
            _time(built["optimize"]["s"] * factor),
            f"{count * _SEARCH_BYTES_PER_ROW / 1e9:,.2g} GB",
            f"{count * dim * _INT8_BYTES_PER_NUMBER / 1e9:,.3g} GB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
