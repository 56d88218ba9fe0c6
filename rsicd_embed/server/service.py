"""What the server can do, as coroutines: searching, finding, and pictures, on their threads."""

from __future__ import annotations

import asyncio
import base64
import io
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from rsicd_embed.embedder.base import Embedder, word_warnings
from rsicd_embed.errors import RequestError
from rsicd_embed.find import finding, heatmap
from rsicd_embed.find.finding import Finding, Question
from rsicd_embed.images import ImageLike
from rsicd_embed.server import image_files
from rsicd_embed.server.batching import Batcher, Policy
from rsicd_embed.server.engine import Ask, Engine, File, Hits
from rsicd_embed.server.middleware import Metrics
from rsicd_embed.server.schemas import LIMITS, Limits

T = TypeVar("T")

_COLUMNS_FOR_S = 10.0
_THUMBNAILS_BYTES = 64 * 1024 * 1024
# Searches wait behind a batch of patches, so it is a small one.
_PATCHES_AT_ONCE = 8


class Service:
    """All that the routes call. Made on any thread, used on one event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        threads: int,
        limits: Limits = LIMITS,
        policy: Policy | None = None,
        paths: bool = False,
    ) -> None:
        """Creates the threads; `start` begins to use them.

        Args:
            engine: the store and its model.
            threads: that decode and draw pictures; the model has its own.
            limits: on requests.
            policy: how searches are batched.
            paths: whether clients see the paths of images and get their files unchanged.
        """
        self.engine, self.limits, self.metrics = engine, limits, Metrics()
        self._model = ThreadPoolExecutor(1, "model")
        self._pictures = ThreadPoolExecutor(threads, "pictures")
        self._finder = ThreadPoolExecutor(1, "find")
        self._threads, self._paths = threads, paths
        self._searches: Batcher[Ask, Hits] = Batcher(
            engine.search, self._model, policy, observe=self.metrics.batches.observe
        )
        self._files: Batcher[str, File] = Batcher(engine.files, self._pictures)
        self._thumbnails: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._held_bytes = 0
        self._columns: tuple[float, dict[str, Any]] | None = None
        self._jobs = 0
        self._warm = asyncio.Event()
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Warms up meanwhile; searches wait for that."""
        self._warming = asyncio.create_task(self._warm_up())

    async def _warm_up(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._model, self.engine.warm)
        finally:  # where it fails, each request will tell why
            self._warm.set()

    async def close(self) -> None:
        """Answers what was asked, then lets go of the threads and the store."""
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._searches.close()
        await self._files.close()
        for executor in (self._finder, self._pictures, self._model):
            executor.shutdown()
        self.engine.close()

    async def ready(self) -> dict[str, Any]:
        """What is served.

        Raises:
            RequestError: 503: still warming up.
            StoreError, ModelError: it cannot be served.
        """
        if not self._warm.is_set():
            raise RequestError(503, "warming up")

        rows = await self._on(self._pictures, self.engine.rows)
        return {"ready": True, "rows": rows, "model": self.model_name}

    @property
    def model_name(self) -> str:
        """Of the model, without the folder that it is in."""
        return self.engine.open().embedder.name.rstrip("/").rpartition("/")[2]

    def warnings(self, *texts: str) -> list[str]:
        """About words that the model was not trained on; see `word_warnings`."""
        return word_warnings(self.engine.open().embedder, texts)

    async def search(self, ask: Ask) -> Hits:
        """The hits of a search."""
        await self._warm.wait()
        return self._visible(await self._searches.ask(ask))

    async def search_picture(self, data: bytes, ask: Ask) -> Hits:
        """The hits of a search by a picture that was brought."""
        await self._warm.wait()

        def prepare() -> Any:
            picture = image_files.decode(data, self.limits.upload_pixels)
            return self.engine.open().embedder.preprocess(picture)

        pixels = await self._on(self._pictures, prepare)
        return self._visible(await self._searches.ask(replace(ask, pixels=pixels)))

    def _visible(self, hits: Hits) -> Hits:
        return hits if self._paths else [_without(hit, "uri") for hit in hits]

    async def find(self, source: bytes | str, question: Question, k: int) -> dict[str, Any]:
        """Where a text is in a picture that was brought, or in that of a row."""
        await self._warm.wait()
        file = await self._files.ask(source) if isinstance(source, str) else None

        def work() -> dict[str, Any]:
            if file is not None:
                picture = image_files.picture(file, self.limits)
            else:
                assert isinstance(source, bytes)
                picture = image_files.decode(source, self.limits.upload_pixels)
            model = OnThread(self.engine.open().embedder, self._model)
            found = finding.find(
                picture, question, model, batch_size=_PATCHES_AT_ONCE, threads=self._threads
            )
            mine = (question.text, *(question.against or ()))
            return _document(found, k) | {"warnings": self.warnings(*mine)}

        return await self._on(self._finder, work)

    async def picture(self, id_: str, side: int) -> tuple[bytes, str]:
        """A row's picture as a JPEG, and a tag that changes when it does."""
        file = await self._files.ask(id_)
        key = (file.sha256 or "", side)
        held = self._thumbnails.get(key) if file.sha256 else None
        if held is None:

            def work() -> bytes:
                return image_files.thumbnail(image_files.read(file, self.limits.file_bytes), side)

            held = await self._on(self._pictures, work)
            self._hold(key, held)
        else:
            self._thumbnails.move_to_end(key)
        return held, f'"{key[0][:32]}-{side}"'

    async def original(self, id_: str) -> tuple[bytes, str]:
        """A row's file, unchanged, and its name.

        Raises:
            RequestError: 403: the server hides paths, and what files contain beside pixels.
        """
        if not self._paths:
            raise RequestError(403, "this server gives no files out, only JPEGs made of them")
        file = await self._files.ask(id_)
        data = await self._on(
            self._pictures, lambda: image_files.read(file, self.limits.file_bytes)
        )
        return data, str(file.uri).rpartition("/")[2]

    def _hold(self, key: tuple[str, int], data: bytes) -> None:
        if not key[0] or key in self._thumbnails:
            return
        self._thumbnails[key] = data
        self._held_bytes += len(data)
        while self._held_bytes > _THUMBNAILS_BYTES:
            self._held_bytes -= len(self._thumbnails.popitem(last=False)[1])

    async def columns(self) -> dict[str, Any]:
        """See `attributes.describe`; some seconds old at most."""
        now = time.monotonic()
        if self._columns is None or now - self._columns[0] > _COLUMNS_FOR_S:
            found = await self._on(self._pictures, self.engine.columns)
            self._columns = (now, found | {"originals": self._paths})
        return self._columns[1]

    async def _on(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._jobs >= self.limits.jobs:
            raise RequestError(503, "too many pictures are waiting; try again in a moment")
        self._jobs += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        finally:
            self._jobs -= 1


def _without(hit: dict[str, Any], hidden: str) -> dict[str, Any]:
    return {name: value for name, value in hit.items() if name != hidden}


def _document(found: Finding, k: int) -> dict[str, Any]:
    scale = min(1.0, heatmap.LONGEST_SIDE / 2 / max(found.size))
    size = (max(1, round(found.size[0] * scale)), max(1, round(found.size[1] * scale)))
    file = io.BytesIO()
    heatmap.layer(heatmap.similarity_map(found), size).save(file, "PNG", compress_level=1)
    return {
        "query": found.texts[0],
        "width": found.size[0],
        "height": found.size[1],
        "against": list(found.texts[1:]),
        "logit_scale": found.logit_scale,
        "count": len(found.boxes),
        "patches": found.best(k),
        "heat_map": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(),
    }


class OnThread:
    """An `Embedder` for other threads: each batch waits for its turn among those of the others."""

    def __init__(self, inner: Embedder, executor: Executor) -> None:
        self.name, self.dim, self.fingerprint = inner.name, inner.dim, inner.fingerprint
        self.batch_size = inner.batch_size
        self._inner, self._executor = inner, executor
        scale = getattr(inner, "logit_scale", None)
        if scale is not None:
            self.logit_scale = scale

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """On the calling thread."""
        return self._inner.preprocess(image)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """In its turn."""
        return self._executor.submit(self._inner.embed_pixels, pixels).result()

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """In its turn."""
        return self._executor.submit(self._inner.embed_images, images).result()

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """In its turn."""
        return self._executor.submit(self._inner.embed_texts, texts).result()
