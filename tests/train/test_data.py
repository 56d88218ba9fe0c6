"""Batches: captions stay with their images, and repeated captions and images form groups."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rsicd_embed.datasets.base import Example
from rsicd_embed.datasets.captioned import load
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TeacherConfig, TrainConfig
from rsicd_embed.train.input import caption_draws as texts_of
from rsicd_embed.train.input.caption_draws import Captions
from rsicd_embed.train.input.training_data import training_source
from rsicd_embed.train.loop import require_negatives

from .captioned_images import SIZE, Numbers, examples, grey, opened

words = st.text("abc", min_size=1, max_size=2)
some_captions = st.lists(st.lists(words, min_size=1, max_size=7), min_size=1, max_size=9)


@settings(max_examples=30)
@given(some_captions, st.data())
def test_drawn_captions_belong_to_their_images(
    captions: list[list[str]], data: st.DataObject
) -> None:
    """For any number of captions; CLIP-rsicd mixed captions up unless there were five."""
    size = data.draw(st.integers(1, len(captions)))
    with TemporaryDirectory() as folder, opened(examples(Path(folder), captions)) as images:
        for number in range(2):
            rows = []
            for batch in images.epoch(number, size):
                assert len(batch.rows) == size
                for i, row in enumerate(batch.rows):
                    assert np.all(batch.pixels[i] == row)  # the right image
                    text = images.captions.texts[batch.tokens[i, 0]]
                    assert text in captions[row]
                rows += batch.rows.tolist()
            assert len(set(rows)) == len(rows) == len(captions) // size * size


@settings(max_examples=30)
@given(some_captions, st.lists(st.integers(0, 8), max_size=3))
def test_groups_of_repeated_captions_and_images(
    captions: list[list[str]], copies: list[int]
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        split = examples(folder, captions)
        contents = list(range(len(split)))
        for i in copies:  # copies of existing images
            original = contents[i % len(split)]
            path = folder / f"copy_{len(split)}.png"
            shutil.copy(folder / f"beach_{original}.png", path)
            split.append(Example(path.name, str(path), {"captions": ["copy"]}))
            contents.append(original)
        with opened(split) as images:
            (batch,) = images.epoch(0, len(split))
            text = [images.captions.texts[t] for t in batch.tokens[:, 0]]
    positives = (batch.groups[:, None] == batch.groups[None]).any(axis=-1)
    wanted = [
        [text[i] == text[j] or contents[a] == contents[b] for j, b in enumerate(batch.rows)]
        for i, a in enumerate(batch.rows)
    ]
    np.testing.assert_array_equal(positives, wanted)
    np.testing.assert_array_equal(positives, positives.T)
    assert positives.diagonal().all()
    assert batch.groups.dtype == np.int32


@settings(max_examples=30)
@given(some_captions, st.data())
def test_batches_without_negatives_are_counted(
    captions: list[list[str]], data: st.DataObject
) -> None:
    size = data.draw(st.integers(1, len(captions)))
    with TemporaryDirectory() as folder, opened(examples(Path(folder), captions)) as images:
        for number in range(2):
            groups = [batch.groups for batch in images.epoch(number, size)]
            lacking = [(group[:, None] == group[None]).any(axis=-1).all() for group in groups]
            assert images.without_negatives(number, size) == sum(lacking)


def test_images_without_distinguishing_captions_are_refused(tmp_path: Path) -> None:
    config = TrainConfig(batch_size=2)
    alike = [["a beach"]] * 4
    with opened(examples(tmp_path, alike)) as images:
        with pytest.raises(TrainError, match=r"in 2 of the 2 batches .* softmax loss has nothing"):
            require_negatives(images, config)
        taught = dataclasses.replace(config, teacher=TeacherConfig("some/model"))
        with pytest.warns(UserWarning, match="2 of the 2 batches"):
            require_negatives(images, taught)
    with (
        opened(examples(tmp_path, [*alike, ["a port"], ["a river"]])) as images,
        pytest.warns(UserWarning, match=r"in \d of the 3 batches .* a larger --batch-size mixes"),
    ):
        require_negatives(images, config)
    with opened(examples(tmp_path, [["a"], ["b"], ["c"], ["d"]])) as images:
        require_negatives(images, config)


def test_captions_with_equal_tokens_are_the_same(tmp_path: Path) -> None:
    class Lower(Numbers):
        def __call__(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return np.array([[ord(text[0].lower())] for text in texts], np.int32)

    captions = Captions.of(examples(tmp_path, [["A"], ["a"], ["b"]]), Lower())
    assert captions.texts[:2] == ("A", "an aerial photograph of beach")
    a, lower, b = (captions.same[captions.texts.index(text)] for text in "Aab")
    assert a == lower != b


def test_texts_are_tokenized_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Letters(Numbers):
        def __call__(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            longest = max(map(len, texts))
            return np.array([[*map(ord, t), *[-1] * (longest - len(t))] for t in texts], np.int32)

    split = [
        Example(str(i), str(tmp_path / "x.png"), {"captions": ["a" * (i % 5 + 1), f"{i}"]})
        for i in range(9)
    ]
    whole = Captions.of(split, Letters())
    monkeypatch.setattr(texts_of, "_AT_ONCE", 4)
    parts = Captions.of(split, Letters())
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    np.testing.assert_array_equal(parts.same, whole.same)


@pytest.mark.parametrize(("fraction", "kinds"), [(0.0, {False}), (1.0, {True})])
def test_captions_from_class_names(tmp_path: Path, fraction: float, kinds: set[bool]) -> None:
    split = examples(tmp_path, [["one", "two"]] * 5)
    with opened(split, class_captions=fraction) as images:
        texts = [
            images.captions.texts[t]
            for number in range(4)
            for batch in images.epoch(number, 5)
            for t in batch.tokens[:, 0]
        ]
    assert {"beach" in text for text in texts} == kinds
    assert len(set(texts)) > 1


def test_captions_of_an_image_are_drawn_equally_often(tmp_path: Path) -> None:
    split = examples(tmp_path, [["a", "b", "c"]] * 20)
    with opened(split) as images:
        drawn = Counter(
            images.captions.texts[t]
            for number in range(30)
            for batch in images.epoch(number, 20)
            for t in batch.tokens[:, 0]
        )
    assert sum(drawn.values()) == 600
    assert min(drawn.values()) > 150  # 200 expected, deviation 11.5


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_all_caches_give_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = examples(tmp_path, [["a"]] * 4)
    wide = np.zeros((9, 27, 3), np.uint8)
    wide[:, 9:18] = 200  # the centre square, which the model sees
    path = tmp_path / "wide.png"
    Image.fromarray(wide).save(path)
    split.append(Example("wide", str(path), {"captions": ["w"]}))
    done: list[int] = []
    for _ in range(2):  # the second time from the cache
        with opened(split, cache=cache) as images:
            (batch,) = images.epoch(0, 5)
        for row, pixels in zip(batch.rows, batch.pixels, strict=True):
            # Pixels at the border are blended.
            assert np.all(pixels[:, 2:6] == (200 if row == 4 else row))
        done.append(len(list((tmp_path / "cache").rglob("*.npy"))))
    assert done == ([2, 2] if cache == "disk" else [0, 0])
    if cache == "disk":  # a changed image is read again
        grey(77, size=11).save(split[0].path)
        with opened(split, cache=cache) as images:
            (batch,) = images.epoch(0, 5)
        assert batch.pixels[batch.rows.tolist().index(0)].max() == 77


def test_unusable_data(tmp_path: Path) -> None:
    split = examples(tmp_path, [["a"], ["b"]])
    with pytest.raises(TrainError, match="found none"):
        opened([])
    with pytest.raises(TrainError, match=r"beach_0\.png: expected a caption"):
        opened([Example("x", split[0].file)])
    with (
        opened(split) as images,
        pytest.raises(TrainError, match="at most the 2 images of an epoch, found 3"),
    ):
        list(images.epoch(0, 3))
    split[1].path.write_bytes(b"rubbish")
    for cache in ("memory", "disk"):
        with pytest.raises(TrainError, match=r"beach_1\.png: not an image.*repair or remove"):
            opened(split, cache=cache)
    split[1].path.unlink()
    for cache in ("memory", "disk", "none"):
        with pytest.raises(TrainError, match=r"beach_1\.png: cannot be read: No such file"):
            opened(split, cache=cache)


def test_identical_files_of_rsicd_are_one_image(rsicd: Path) -> None:
    wanted = ("industrial_203.jpg", "industrial_205.jpg", "industrial_204.jpg")
    split = {e.id: e for e in load(rsicd).examples if e.id in wanted}
    twins = [split[name] for name in wanted]
    with opened(twins) as images:
        (batch,) = images.epoch(0, 3)
    image = dict(zip(batch.rows.tolist(), batch.groups[:, 1].tolist(), strict=True))
    assert image[0] == image[1] != image[2]


@pytest.mark.filterwarnings("ignore:.*there is no split 'val'")
def test_an_epoch_of_ucm_reads_every_image_with_one_of_its_captions(ucm: Path) -> None:
    data = training_source([(ucm, 1.0)])
    seen: set[int] = set()
    with opened(data.train, weights=data.weights) as images:
        for batch in images.epoch(0, 4):
            assert batch.pixels.shape == (4, SIZE, SIZE, 3)
            for row, text in zip(batch.rows, batch.tokens[:, 0], strict=True):
                assert images.captions.texts[text] in data.train[row].captions
            seen.update(batch.rows.tolist())
    assert seen == set(range(len(data.train)))
