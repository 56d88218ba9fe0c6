"""Queries composed of texts, images and rows of the store, and the vector that they make.

The vector of a query is the normalised weighted sum of its parts' unit vectors. Wanted parts have a
weight of 1 unless another one is given, texts to avoid −½, and images and rows to avoid −¼. This
removes nearly all images of the avoided kind from the first hits, while twice as much would also
lose many wanted images (`scripts/bench_queries.py` and `scripts/bench_feedback.py` measure both).
Parts to avoid share the weight of the strongest of them, or several would drown what is wanted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rsicd_embed.arguments import require_items, shown
from rsicd_embed.datasets.prompts import prompt_templates
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import ArgumentError, DatasetError, QueryError, UnknownRowError
from rsicd_embed.images import ImageLike
from rsicd_embed.query.area import Area, Near
from rsicd_embed.query.recent_texts import text_vectors
from rsicd_embed.records import require_same_model
from rsicd_embed.stores.base import VectorStore, row_vectors

WANTED, AVOIDED_TEXT, AVOIDED_EXAMPLE = 1.0, -0.5, -0.25
MERGE = 0.1
UNPROMPTED = "none"  # the ensemble of texts as they are
_LARGEST_WEIGHT = 1e6
# A sum this short, relative to the weights, is a rounding error.
_ZERO = 1e-5


@dataclass(frozen=True)
class Part:
    """One part of a query: exactly one of a text, an image and the id of a row.

    Attributes:
        text: a text.
        image: a Pillow image, path, or bytes of an image file; or pixels as `Embedder.preprocess`
            returns them.
        id: id of a row in the store.
        weight: weight of the part; negative if hits should not resemble it. All such parts of a
            query together weigh as much as the strongest of them.

    Raises:
        QueryError: none or several of the three, a blank text, an id that is not a string, or a
            weight of zero.
    """

    text: str | None = None
    image: ImageLike | np.ndarray | None = None
    id: str | None = None
    weight: float = WANTED

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.text, self.image, self.id)]
        if sum(given) != 1:
            raise QueryError(
                f"expected one of text, image and id in a part of a query, found {sum(given)}"
            )
        if self.text is not None and not (isinstance(self.text, str) and self.text.strip()):
            raise QueryError(f"expected a text that is not empty, found {shown(self.text)}")
        if self.id is not None and not isinstance(self.id, str):
            raise QueryError(f"expected an id that is a string, found {shown(self.id)}")
        usable = isinstance(self.weight, int | float) and 0 < abs(self.weight) <= _LARGEST_WEIGHT
        if not usable:
            raise QueryError(
                f"expected a weight other than 0, up to {_LARGEST_WEIGHT:g}, found {self.weight!r}"
            )

    @classmethod
    def parse(cls, kind: str, value: str, default: float = WANTED) -> Part:
        """Reads `harbour` or `2*harbour`, whose number scales the default weight.

        Args:
            kind: `text`, `image` or `id`.
            value: the text, path or id, perhaps with a weight before it.
            default: weight without a number; the number itself is positive.

        Example:
            >>> Part.parse("text", "2*oil tanks", AVOIDED_TEXT)
            Part(text='oil tanks', image=None, id=None, weight=-1.0)
        """
        match = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*\*(.+)", value, re.DOTALL)
        if match is None:
            return cls(**{kind: value}, weight=default)
        rest = match[2].strip() if kind == "text" else match[2]
        return cls(**{kind: rest}, weight=default * float(match[1]))

    def __str__(self) -> str:
        kind = "text" if self.text is not None else "image" if self.id is None else "id"
        name = self.text if self.text is not None else self.id
        if name is None:
            name = str(self.image) if isinstance(self.image, str) else "an image"
        avoided = AVOIDED_EXAMPLE if self.text is None else AVOIDED_TEXT
        usual = avoided if self.weight < 0 else WANTED
        scale = "" if self.weight == usual else f"{self.weight / usual:g}*"
        prefix = {"text": ("", "not "), "image": ("", "not "), "id": ("like ", "unlike ")}[kind]
        return f"{prefix[self.weight < 0]}{scale}{name}"


@dataclass(frozen=True)
class Query:
    """A search: the parts that hits should resemble, and limits of the hits to return.

    Attributes:
        parts: texts, images and rows, at least one of them with a positive weight.
        k: maximum number of hits; None for all.
        offset: number of best hits to skip.
        where: SQL condition that hits meet, in DataFusion's dialect.
        within: area that the footprints of all hits intersect, or their coordinates.
        near: place that all hits are near, likewise.
        contained: whether hits must lie entirely inside these places.
        merge: overlap of footprints (intersection over union), above 0 and at most 1, from which
            only the best of several hits is kept; None keeps all. `MERGE` merges tiles that are
            half a side apart, also diagonally.
        min_score: lowest score of a hit, in [-1, 1].
        with_examples: whether rows given as parts may be hits themselves.
        prompts: name of an ensemble in `datasets/prompts.toml`, or a template with `{category}`,
            that texts are put into; None for the texts alone.
        hybrid: whether to fuse similarity with the full-text ranking of a text column; hits are
            then sorted by the column `fused_score`, and `score` is still the similarity.
        text_column: the column of a hybrid search; None for `caption` or another usual name.

    Raises:
        QueryError: one of these is invalid.
        ArgumentError: `parts` is a single text.
    """

    parts: Sequence[Part]
    k: int | None = 10
    offset: int = 0
    where: str | None = None
    within: Area | None = None
    min_score: float | None = None
    with_examples: bool = False
    prompts: str | None = None
    hybrid: bool = False
    text_column: str | None = None
    near: Near | None = None
    contained: bool = False
    merge: float | None = None

    def __post_init__(self) -> None:
        require_items(self.parts, "parts of a query", Part)
        require_positive(self.parts)
        for name, least in (("k", 1), ("offset", 0)):
            value = getattr(self, name)
            if value is None and name == "k":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise QueryError(
                    f"expected {name} to be a whole number of at least {least}, found {value!r}"
                )
        if self.contained and self.within is None and self.near is None:
            raise QueryError("contained needs a place: within or near")
        if self.merge is not None and not 0 < self.merge <= 1:
            raise QueryError(
                f"expected an overlap to merge hits above 0, at most 1, found {self.merge}"
            )
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise QueryError(
                f"expected a minimum score from -1 to 1, as cosines are, found {self.min_score}"
            )
        _ = self.templates
        if self.text_column is not None and not self.hybrid:
            raise QueryError(
                f"a text column is for hybrid searches, found {shown(self.text_column)} in another"
            )

    @cached_property
    def templates(self) -> tuple[str, ...]:
        """The prompts of the texts."""
        try:
            return prompt_templates(self.prompts or UNPROMPTED)
        except DatasetError as error:
            raise QueryError(str(error)) from None

    @cached_property
    def excluded(self) -> tuple[str, ...]:
        """Ids of the rows that are left out of the hits."""
        if self.with_examples:
            return ()
        return tuple(dict.fromkeys(part.id for part in self.parts if part.id is not None))

    @property
    def depth(self) -> int:
        """Number of best rows that certainly include the hits of a query with k."""
        return (self.k or 0) + self.offset + len(self.excluded)

    @property
    def texts(self) -> list[str]:
        """The texts among the parts."""
        return [part.text for part in self.parts if part.text is not None]

    @property
    def title(self) -> str:
        """The text, id or path of a single part, and a description of several."""
        first = self.parts[0]
        if len(self.parts) > 1 or (first.image is not None and not isinstance(first.image, str)):
            return ", ".join(map(str, self.parts))
        given = (first.text, first.id, first.image)
        return str(next(value for value in given if value is not None))


def parse_all(
    *,
    texts: Iterable[str] = (),
    images: Iterable[str] = (),
    like: Iterable[str] = (),
    avoided: Iterable[str] = (),
    unlike: Iterable[str] = (),
) -> list[Part]:
    """Parses the parts of a query by role: texts, image files and ids to look for or to avoid.

    Raises:
        QueryError: a blank text, or a weight of zero.
    """
    given = (
        ("text", texts, WANTED),
        ("image", images, WANTED),
        ("id", like, WANTED),
        ("text", avoided, AVOIDED_TEXT),
        ("id", unlike, AVOIDED_EXAMPLE),
    )
    return [Part.parse(kind, value, weight) for kind, values, weight in given for value in values]


def require_positive(parts: Sequence[Part]) -> None:
    """Raises QueryError unless at least one part has a positive weight."""
    if not any(part.weight > 0 for part in parts):
        count = f"{len(parts)} to avoid" if parts else "none"
        raise QueryError(
            f"expected at least one text, image or id to look for, found {count}; "
            "the opposite of something is not a query"
        )


def shared_weights(parts: Sequence[Part]) -> list[float]:
    """The weights with which parts enter the sum.

    Example:
        >>> shared_weights([Part("a port"), Part("ice", weight=-0.5), Part("rain", weight=-0.5)])
        [1.0, -0.25, -0.25]
    """
    avoided = [part.weight for part in parts if part.weight < 0]
    share = min(avoided) / sum(avoided) if avoided else 1.0
    return [part.weight * share if part.weight < 0 else part.weight for part in parts]


def query_vectors(
    queries: Sequence[Query], store: VectorStore, embedder: Callable[[], Embedder]
) -> list[np.ndarray | QueryError]:
    """Makes the vectors of several queries; new texts are embedded once, in one batch per
    ensemble of prompts.

    Args:
        queries: the queries.
        store: contains the rows that parts refer to.
        embedder: returns the model that made the store; only called for texts and images.

    Returns:
        For each query a float32 (dim,) unit vector, or why there is none: an `UnknownRowError` for
        an id that the store lacks, or a QueryError for parts that cancel out.

    Raises:
        FingerprintError: the model did not make the store's vectors.
        ImageError: an image cannot be read.
    """
    parts = [part for query in queries for part in query.parts]
    texts: dict[tuple[str, ...], dict[str, None]] = {}
    for query in queries:
        texts.setdefault(query.templates, {}).update(dict.fromkeys(query.texts))
    texts = {templates: of for templates, of in texts.items() if of}
    images = list({id(part.image): part.image for part in parts if part.image is not None}.values())
    by_text: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    by_image: dict[int, np.ndarray] = {}
    if texts or images:
        model = embedder()
        require_same_model(store.provenance, provenance(model), store.uri, for_queries=True)
        for templates, of in texts.items():
            by_text[templates] = text_vectors(model, of, templates)
        by_image = _embed_images(images, model)
    by_id = row_vectors(store, [part.id for part in parts if part.id is not None])

    def unit(part: Part, templates: tuple[str, ...]) -> np.ndarray | None:
        if part.text is not None:
            return by_text[templates][part.text]
        return by_image[id(part.image)] if part.id is None else by_id.get(part.id)

    return [
        _combined(query.parts, [unit(part, query.templates) for part in query.parts])
        for query in queries
    ]


def query_vector(query: Query, store: VectorStore, embedder: Callable[[], Embedder]) -> np.ndarray:
    """The float32 (dim,) unit vector of one query; see `query_vectors`, whose errors it raises."""
    (vector,) = query_vectors([query], store, embedder)
    if isinstance(vector, QueryError):
        raise vector
    return vector


def _embed_images(images: Sequence[object], model: Embedder) -> dict[int, np.ndarray]:
    pixels = [image for image in images if isinstance(image, np.ndarray)]
    files = [image for image in images if not isinstance(image, np.ndarray)]
    vectors = [
        *(model.embed_pixels(np.stack(pixels)) if pixels else ()),
        *(model.embed_images(files) if files else ()),  # type: ignore[arg-type]
    ]
    return {id(image): vector for image, vector in zip([*pixels, *files], vectors, strict=True)}


def _combined(parts: Sequence[Part], units: Sequence[np.ndarray | None]) -> np.ndarray | QueryError:
    total: np.ndarray | None = None
    weights = shared_weights(parts)
    for part, weight, unit in zip(parts, weights, units, strict=True):
        if unit is None:
            return UnknownRowError(f"no row with the id {shown(part.id)} in the store")
        weighted = weight * unit.astype(np.float64)
        total = weighted if total is None else total + weighted
    if total is None:
        raise ArgumentError("expected at least one part of a query, found none")
    if len(parts) == 1 and parts[0].weight > 0:
        (single,) = units
        assert single is not None
        return single
    norm = float(np.linalg.norm(total))
    if not math.isfinite(norm) or norm < _ZERO * sum(map(abs, weights)):
        return QueryError(
            "the parts of the query cancel out, so no direction is left to search in; "
            "change a weight, or remove parts that are both wanted and avoided"
        )
    result: np.ndarray = (total / norm).astype(np.float32)
    return result
