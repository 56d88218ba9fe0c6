"""Progress on stderr: a bar on a terminal, lines in a log."""

from __future__ import annotations

import pytest

from rsicd_embed.cli import progress
from rsicd_embed.cli.train.train_run import ShownProgress


def test_progress_in_a_log_is_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress, "_LINE_EVERY_S", 10.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with progress.image_progress("ingest", 400) as advance:
        for _ in range(100):
            now += 0.25
            advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "ingest: 40/400, 4.0 images/s, ETA 90 s",
        "ingest: 80/400, 4.0 images/s, ETA 80 s",
    ]


def test_progress_on_a_terminal_is_a_bar_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    with progress.image_progress("ingest", 4) as advance:
        for _ in range(4):
            advance(1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "ingest" in err
    assert "4/4" in err


def test_training_shows_one_bar_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    with ShownProgress(batch_size=2, epochs=3, images=4, views=8) as shown:
        for _ in range(4):
            shown.on_image(1)
        for _ in range(2):
            shown.on_view(4)
        shown.on_start(0, 6)
        shown.on_steps([{"step": 1, "epoch": 1, "loss": 2.0}])
    out, err = capsys.readouterr()
    assert out == ""
    places = [err.index(text) for text in ("reading images", "teacher's views", "epoch 1/3  loss")]
    assert places == sorted(places)
    assert "4/4" in err
    assert "8/8" in err
    assert "2/12" in err
