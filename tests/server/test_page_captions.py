"""Generated captions on the page and in the HTTP API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyarrow as pa

import rsicd_embed
from rsicd_embed.curation.caption_column import caption_columns
from rsicd_embed.embedder.loading import load_for_a_query
from rsicd_embed.testing.stores import batch

from .browsing import SIZES, search, serious_violations, served
from .test_page_results import opened_without_images


def test_a_generated_caption_is_marked(browser: Any, tiny_model: Path, tmp_path: Path) -> None:
    uri = f"exact:{tmp_path / 'store'}"
    embedder = load_for_a_query(tiny_model)
    text, likely = caption_columns("caption_auto").names
    rows = batch(
        ["first", "second"],
        np.eye(2, embedder.dim, dtype=np.float32),
        label=pa.array(["port", "river"]),
        **{text: pa.array(["boats <b>in</b> a port", None]), likely: pa.array([-0.5, None])},
    )
    with rsicd_embed.open_store(uri, embedder=embedder) as store:
        store.upsert([rows])
    with (
        served(uri, "--backend", "numpy") as address,
        opened_without_images(browser, address, "", SIZES["phone"]) as page,
    ):
        search(page, "boats")
        cards = {name: page.locator(".card", has_text=name) for name in ("first", "second")}
        captions = {
            name: card.locator(".caption").all_inner_texts() for name, card in cards.items()
        }
        attributes = [card.locator(".attributes").inner_text() for card in cards.values()]
        violations = serious_violations(page)
        with urlopen(f"{address}api/search?text=boats") as response:
            answer = json.load(response)
    assert captions == {"first": ["boats <b>in</b> a port generated"], "second": []}
    assert attributes == ["label: port", "label: river"]
    assert violations == []
    assert {hit["id"]: hit["caption_auto"] for hit in answer["hits"]} == {
        "first": "boats <b>in</b> a port", "second": None,
    }  # fmt: skip
