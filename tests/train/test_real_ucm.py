"""One epoch of the real UCM: every training image is read with one of its captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsicd_embed.train.input.training_data import training_source

from .captioned_images import SIZE, opened


@pytest.mark.filterwarnings("ignore:.*there is no split 'val'")
def test_one_epoch(ucm: Path) -> None:
    data = training_source([(ucm, 1.0)])
    seen: set[int] = set()
    with opened(data.train, weights=data.weights) as images:
        for batch in images.epoch(0, 4):
            assert batch.pixels.shape == (4, SIZE, SIZE, 3)
            for row, text in zip(batch.rows, batch.tokens[:, 0], strict=True):
                assert images.captions.texts[text] in data.train[row].captions
            seen.update(batch.rows.tolist())
    assert seen == set(range(len(data.train)))
