"""`ingest --engine ray` while its workers are killed again and again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rsicd_embed.stores.base import open_store

from .helpers import rows, run
from .test_ray_clusters import last_line_of

KILLS, IMAGES, WORKERS = 20, 1600, 2

# Each of the first workers is ended by the kernel after a random CPU time, so while it reads,
# embeds or sends; an idle worker is not.
PROGRAM = """
import itertools, json, os, random, signal, sys
import rsicd_embed
from rsicd_embed.indexing.ingest import ingest_with
from rsicd_embed.indexing.ray_workers import RayWorkers
from rsicd_embed.stores.base import open_store

pictures, model, uri, folder, kills, count = sys.argv[1:]
sources = rsicd_embed.open_sources([pictures])

def claim(number):
    try:
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True

def load():
    embedder = rsicd_embed.load_embedder(model, batch_size=4, backend="numpy")
    number = next(number for number in itertools.count() if claim(number))
    if number < int(kills):
        life_s = random.Random(number).uniform(0.001, 0.12)
        signal.setitimer(signal.ITIMER_PROF, life_s)  # without a handler, it ends the process
    return embedder

with RayWorkers(load, address="local", count=int(count)) as workers:
    with open_store(uri, workers.provenance) as store:
        first = ingest_with(sources, workers, store)
        again = ingest_with(sources, workers, store)
print(json.dumps([first.embedded, again.unchanged, len(os.listdir(folder))]))
"""


@pytest.mark.slow
def test_nothing_is_lost_or_doubled(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pictures, started = tmp_path / "pictures", tmp_path / "started"
    for folder in (pictures, started):
        folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = random.integers(0, 256, (48, 48, 3), np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number:04}.png")
    uri, local = f"lancedb:{tmp_path / 'store'}", f"lancedb:{tmp_path / 'local'}"
    words = [pictures, tiny_model, uri, started, KILLS, WORKERS]
    assert last_line_of(PROGRAM, *words) == [IMAGES, IMAGES, KILLS + WORKERS]
    command = ("ingest", pictures, "--store", local, "--model", tiny_model)
    assert run(*command, "--batch-size", "4", "--backend", "numpy").status == 0
    assert rows(uri) == rows(local)
    with open_store(uri) as store:
        ids = store.scan(["id"]).read_all()["id"].to_pylist()
    assert ids == [f"{number:04}.png" for number in range(IMAGES)]
