"""Load a server with all kinds of requests and measure its memory.

    python scripts/soak_server.py --requests 50000 -o soak.json

Creates a store of generated images and requests searches by text, id and image, with filters,
thumbnails, and finding texts in images. Exits with status 1 if a response is wrong or memory usage
keeps growing: its peak in the second half may be at most 5% above that in the second quarter.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import rsicd_embed
from rsicd_embed.bench import synthetic_inputs
from rsicd_embed.bench.serve_rates import (
    Request,
    Server,
    get_request,
    post_request,
    searches,
    send_all,
    serving,
)
from rsicd_embed.reports.timing import significant

_ROUNDS = 40
_GROWTH = 1.05
_BOUNDARY = "soak"


def form(path: str, fields: dict[str, str], image: bytes) -> Request:
    """Creates a form request with an image."""
    lines = []
    for name, value in fields.items():
        head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        lines.append(f"{head}{value}\r\n".encode())
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    )
    lines.append(head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode())
    return post_request(path, f"multipart/form-data; boundary={_BOUNDARY}", b"".join(lines))


def requests(count: int, ids: list[str], images: list[bytes], draw: random.Random) -> list[Request]:
    """Creates a mix of requests in which expensive ones are rare."""
    mix = []
    for i in range(count):
        kind = i % 100
        if kind == 0:
            mix.append(form("/api/find", {"text": "boats", "patch": "100"}, draw.choice(images)))
        elif kind < 5:
            mix.append(form("/api/search/image", {"k": "5"}, draw.choice(images)))
        elif kind < 25:
            side = draw.choice([160, 320])
            mix.append(get_request("/api/pictures", {"id": draw.choice(ids), "side": side}))
        elif kind < 40:
            query: dict[str, Any] = {"id": draw.choice(ids), "k": 10}
            query["filters"] = [
                {"column": "width", "operator": ">=", "value": draw.randint(1, 300)}
            ]
            mix.append(post_request("/api/search", "application/json", json.dumps(query).encode()))
        elif kind < 42:
            mix.append(get_request("/api/columns", {}, '"columns"'))
        else:
            mix += searches(1, 10)
    return mix


def soak(server: Server, count: int, ids: list[str], images: list[bytes]) -> dict[str, Any]:
    """Sends requests in rounds and measures memory usage after each."""
    draw, resident = random.Random(0), []
    each = max(1, count // _ROUNDS)
    for i in range(_ROUNDS):
        send_all(server.url, requests(each, ids, images, draw), 16)
        resident.append(server.resident_bytes())
        print(f"{(i + 1) * each} requests, {resident[-1] / 1e6:.0f} MB", file=sys.stderr)
    early = max(resident[_ROUNDS // 4 : _ROUNDS // 2])
    late = max(resident[_ROUNDS // 2 :])
    return {
        "requests": each * _ROUNDS,
        "resident_bytes": resident,
        "growth": significant(late / early, 4),
        "flat": late <= _GROWTH * early,
    }


def main() -> None:
    """Runs the soak test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--model", help="as for --model")
    parser.add_argument("-o", "--output", type=Path, help="file for the record")
    options = parser.parse_args()
    words = ("--model", options.model) if options.model else ()
    with tempfile.TemporaryDirectory(prefix="rsicd-embed-") as folder:
        files = Path(folder, "pictures")
        synthetic_inputs.write_jpegs(files, options.pictures, (150, 300))
        embedder = rsicd_embed.load_embedder(options.model)
        store = f"exact:{folder}/store"
        with rsicd_embed.open_store(store, embedder=embedder) as opened:
            rsicd_embed.ingest(rsicd_embed.open_sources([files]), embedder, opened)
            ids = opened.scan(["id"]).read_all()["id"].to_pylist()
        images = [path.read_bytes() for path in sorted(files.rglob("*.jpg"))[:20]]
        with serving(store, *words) as server:
            result = soak(server, options.requests, ids, images)
    text = json.dumps(result, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(0 if result["flat"] else 1)


if __name__ == "__main__":
    main()
