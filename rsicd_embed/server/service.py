"""The operations of the server as coroutines: search, find and images, each on its threads."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image

from rsicd_embed.curation.corrections import LabelColumns, LabelState
from rsicd_embed.embedder.base import Embedder, word_warnings
from rsicd_embed.errors import RequestError, RowChangedError, SchemaError
from rsicd_embed.find import finding, heatmap
from rsicd_embed.find.finding import Finding, Question
from rsicd_embed.images import ImageLike, SceneWindow
from rsicd_embed.query.area import Area
from rsicd_embed.query.composed import Part, Query
from rsicd_embed.server import image_files
from rsicd_embed.server.batching import Batcher, Policy
from rsicd_embed.server.conditions import Condition
from rsicd_embed.server.engine import PATHS, Engine, SearchQuery, SearchResult, StoredFile
from rsicd_embed.server.page_schemas import ColumnList, LabelNames, Overview, Ready
from rsicd_embed.server.schemas import LIMITS, FindResponse, Limits
from rsicd_embed.server.server_metrics import Metrics

T = TypeVar("T")

_CACHED_S = 10.0
_THUMBNAILS_BYTES = 64 * 1024 * 1024
# Small, because searches wait for a batch of patches to finish.
_PATCHES_PER_BATCH = 8


class Service:
    """The operations behind the routes. Created on any thread, used on one event loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        threads: int,
        limits: Limits = LIMITS,
        policy: Policy | None = None,
        paths: bool = False,
        labels: str | None = None,
    ) -> None:
        """Creates the thread pools; `start` warms the model up.

        Args:
            engine: the store and its model.
            threads: threads that decode and resize images; the model has its own.
            limits: limits of requests.
            policy: how searches are batched.
            paths: whether clients see image paths and can download the original files.
            labels: column of labels that clients may correct; None to write nothing.
        """
        self.engine, self.limits, self.metrics = engine, limits, Metrics()
        self.shows_paths = paths
        self._corrected = None if labels is None else LabelColumns(labels)
        self._model = ThreadPoolExecutor(1, "model")
        self._images = ThreadPoolExecutor(threads, "images")
        self._finder = ThreadPoolExecutor(1, "find")
        self._threads = threads
        self._searches: Batcher[SearchQuery, list[SearchResult]] = Batcher(
            engine.search, self._model, policy, observe=self.metrics.batches.observe
        )
        self._files: Batcher[str, StoredFile] = Batcher(engine.files, self._images)
        self._thumbnails: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._thumbnails_bytes = 0
        self._columns: tuple[float, ColumnList] | None = None
        self._overview: tuple[object, float, Overview] | None = None
        self._jobs = 0
        self._warm = asyncio.Event()
        self._warming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts to warm the model up; searches wait until it is done."""
        self._warming = asyncio.create_task(self._warm_up())

    async def _warm_up(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._model, self.engine.warm)
        finally:  # if it fails, each request reports the reason
            self._warm.set()

    async def close(self) -> None:
        """Answers queued requests, then stops the threads and closes the store."""
        if self._warming is not None:
            await asyncio.gather(self._warming, return_exceptions=True)
        await self._searches.close()
        await self._files.close()
        for executor in (self._finder, self._images, self._model):
            executor.shutdown()
        self.engine.close()

    async def ready(self) -> Ready:
        """Returns the server's state once it is ready.

        Raises:
            RequestError: 503: still warming up.
            StoreError: the store is unavailable.
            ModelError: the model is unavailable.
        """
        if not self._warm.is_set():
            raise RequestError(503, "warming up")
        rows = await self._run(self._images, self.engine.rows)
        name = self.engine.open().embedder.name.rstrip("/").rpartition("/")[2]  # not its folder
        return {"ready": True, "rows": rows, "model": name}

    def warnings(self, *texts: str) -> list[str]:
        """Warns about words that the model was not trained on; see `word_warnings`."""
        return word_warnings(self.engine.open().embedder, texts)

    async def search(self, query: SearchQuery) -> list[SearchResult]:
        """Returns the hits of a query."""
        self._require_visible(query.filters)
        await self._warm.wait()
        return await self._searches.ask(query)

    async def search_image(
        self, data: bytes, query: Callable[[Part], Query], filters: tuple[Condition, ...]
    ) -> list[SearchResult]:
        """Returns the hits of a query with an uploaded image as a further part.

        Args:
            data: the image's file.
            query: makes the query of the image's part.
            filters: conditions that all hits meet.
        """
        self._require_visible(filters)
        await self._warm.wait()

        def preprocess() -> np.ndarray:
            image = image_files.decode(data, self.limits.upload_pixels)
            return self.engine.open().embedder.preprocess(image)

        pixels = await self._run(self._images, preprocess)
        return await self._searches.ask(SearchQuery(query(Part(image=pixels)), filters))

    async def find(self, source: bytes | str, question: Question, k: int) -> FindResponse:
        """Finds a text in an uploaded image, or in the image of the row with an id."""
        await self._warm.wait()
        file = await self._files.ask(source) if isinstance(source, str) else None

        def work() -> FindResponse:
            if file is not None:
                image = image_files.stored_picture(file, self.limits)
            else:
                assert isinstance(source, bytes)
                image = image_files.decode(source, self.limits.upload_pixels)
            model = SingleThreadEmbedder(self.engine.open().embedder, self._model)
            result = finding.find(
                image, question, model, batch_size=_PATCHES_PER_BATCH, threads=self._threads
            )
            texts = (question.text, *(question.against or ()))
            return _find_response(result, k, self.warnings(*texts))

        return await self._run(self._finder, work)

    async def thumbnail(self, id_: str, side: int) -> tuple[bytes, str]:
        """Returns a row's image as a JPEG, and its ETag."""
        file = await self._files.ask(id_)
        key = (file.sha256 or "", side)
        jpeg = self._thumbnails.get(key) if file.sha256 else None
        if jpeg is None:

            def work() -> bytes:
                return image_files.thumbnail(image_files.read(file, self.limits.file_bytes), side)

            jpeg = await self._run(self._images, work)
            self._cache_thumbnail(key, jpeg)
        else:
            self._thumbnails.move_to_end(key)
        name = key[0] or hashlib.sha256(jpeg).hexdigest()
        return jpeg, f'"{name[:32]}-{side}"'

    def _cache_thumbnail(self, key: tuple[str, int], jpeg: bytes) -> None:
        if not key[0] or key in self._thumbnails:
            return
        self._thumbnails[key] = jpeg
        self._thumbnails_bytes += len(jpeg)
        while self._thumbnails_bytes > _THUMBNAILS_BYTES:
            self._thumbnails_bytes -= len(self._thumbnails.popitem(last=False)[1])

    async def original(self, id_: str) -> tuple[bytes, str]:
        """Returns a row's file, unchanged, or its window of a scene as a PNG, and its name.

        Raises:
            RequestError: 403: the server hides paths, and with them whatever files contain besides
                pixels.
        """
        if not self.shows_paths:
            raise RequestError(403, "this server does not offer original files, only JPEGs")
        file = await self._files.ask(id_)
        data = await self._run(self._images, lambda: image_files.read(file, self.limits.file_bytes))
        name = str(file.uri).rpartition("/")[2]
        return data, f"{name}.png" if SceneWindow.parse(name) else name

    async def columns(self) -> ColumnList:
        """Describes the columns to filter by; cached for some seconds."""
        now = time.monotonic()
        if self._columns is None or now - self._columns[0] > _CACHED_S:
            described = await self._run(self._images, self.engine.columns)
            labels = self._corrected or await self._run(self._images, self.engine.label_columns)
            shown: LabelNames | None = None
            if labels is not None:
                shown = {
                    "label": labels.label,
                    "probability": labels.probability,
                    "corrected": labels.corrected,
                    "writable": self._corrected is not None,
                }
            originals = self.shows_paths
            if not originals:
                visible = [c for c in described["columns"] if c["name"] not in PATHS]
                described = {**described, "columns": visible}
            self._columns = (now, {**described, "originals": originals, "labels": shown})
        return self._columns[1]

    async def set_label(self, id_: str, was: str | None, state: LabelState) -> LabelState:
        """Writes a row's label and returns the state before.

        Raises:
            RequestError: 403: the server writes no labels. 409: the label has changed. 422: it is
                not valid.
            UnknownRowError: there is no such row.
        """
        columns = self._require_labels()

        def write() -> LabelState:
            try:
                return self.engine.set_label(columns, id_, was, state)
            except RowChangedError as error:
                raise RequestError(409, str(error)) from error
            except SchemaError as error:
                raise RequestError(422, str(error)) from error

        before = await self._run(self._images, write)
        self._columns = self._overview = None
        return before

    async def corrected_labels(self) -> dict[str, str]:
        """The corrected labels by id.

        Raises:
            RequestError: 403: the server writes no labels.
        """
        columns = self._require_labels()
        return await self._run(self._images, lambda: self.engine.corrected_labels(columns))

    def _require_labels(self) -> LabelColumns:
        if self._corrected is None:
            raise RequestError(
                403, "this server only reads; to correct labels, start it with --allow-labels"
            )
        return self._corrected

    def _require_visible(self, filters: Sequence[Condition]) -> None:
        """Refuses filters by columns that are hidden, which would reveal their values."""
        hidden = () if self.shows_paths else PATHS
        name = next((each.column for each in filters if each.column in hidden), None)
        if name is not None:
            raise RequestError(422, f"no column {name!r} to filter by: this server hides paths")

    async def overview(
        self, k: int, filters: tuple[Condition, ...] = (), areas: tuple[Area, ...] = ()
    ) -> Overview:
        """A sample of the rows and their places; of all rows, cached for some seconds."""
        self._require_visible(filters)
        now = time.monotonic()
        key = (k, filters, areas)
        if (
            self._overview is None
            or self._overview[0] != key
            or now - self._overview[1] > _CACHED_S
        ):
            made = await self._run(self._images, lambda: self.engine.overview(k, filters, areas))
            if not self.shows_paths:
                for row in made["sample"]:
                    for name in PATHS:
                        row.pop(name, None)  # type: ignore[misc]
            self._overview = (key, now, made)
        return self._overview[2]

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._jobs >= self.limits.jobs:
            raise RequestError(503, "too many images are waiting; try again in a moment")
        self._jobs += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, work)
        finally:
            self._jobs -= 1


class SingleThreadEmbedder:
    """An `Embedder` that runs another one on a single thread, since embedders may be unsafe."""

    def __init__(self, inner: Embedder, executor: Executor) -> None:
        self.name, self.dim, self.fingerprint = inner.name, inner.dim, inner.fingerprint
        self.batch_size = inner.batch_size
        self._inner, self._executor = inner, executor
        for name in ("logit_scale", "logit_bias"):
            if getattr(inner, name, None) is not None:
                setattr(self, name, getattr(inner, name))

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Runs on the calling thread."""
        return self._inner.preprocess(image)

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Runs on the model's thread."""
        return self._executor.submit(self._inner.embed_pixels, pixels).result()

    def embed_images(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Runs on the model's thread."""
        return self._executor.submit(self._inner.embed_images, images).result()

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Runs on the model's thread."""
        return self._executor.submit(self._inner.embed_texts, texts).result()


def _find_response(result: Finding, k: int, warnings: list[str]) -> FindResponse:
    width, height = result.size
    scale = min(1.0, heatmap.LONGEST_SIDE / 2 / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    png = io.BytesIO()
    heatmap.layer(heatmap.similarity_map(result), size).save(png, "PNG", compress_level=1)
    return {
        "query": result.texts[0],
        "width": width,
        "height": height,
        "against": list(result.texts[1:]),
        "logit_scale": result.logit_scale,
        "logit_bias": result.logit_bias,
        "count": len(result.boxes),
        "patches": result.best(k),
        "heat_map": "data:image/png;base64," + base64.b64encode(png.getvalue()).decode(),
        "warnings": warnings,
    }
