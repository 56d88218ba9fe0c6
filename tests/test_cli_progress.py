"""Progress on stderr: a bar on a terminal, lines in a log."""

from __future__ import annotations

import pytest

from rsicd_embed.cli import progress


def test_progress_in_a_log_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
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
