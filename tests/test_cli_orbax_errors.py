"""Suppression of the tracebacks of Orbax's threads."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from rsicd_embed.cli.train.train_run import suppress_orbax_tracebacks


def unraisable(text: str) -> Any:
    """The argument of `sys.unraisablehook`."""
    error = RuntimeError(text)
    return SimpleNamespace(
        exc_type=RuntimeError, exc_value=error, exc_traceback=None, err_msg=None, object=None
    )


@pytest.mark.parametrize("debug", [False, True])
def test_orbax_tracebacks_are_suppressed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    printed: list[str] = []
    hook = lambda error: printed.append(str(error.exc_value))  # noqa: E731
    monkeypatch.setattr(sys, "unraisablehook", hook)
    with suppress_orbax_tracebacks(debug=debug):
        logging.getLogger("absl").error("a thread raised")
        sys.unraisablehook(unraisable("Event loop is closed"))
        sys.unraisablehook(unraisable("something else"))
    assert printed == ["Event loop is closed"] * debug + ["something else"]
    assert caplog.messages == ["a thread raised"] * debug
    sys.unraisablehook(unraisable("Event loop is closed"))  # by a task that ends later
    assert printed[1 + debug :] == ["Event loop is closed"] * debug
    logging.getLogger("absl").error("afterwards")
    assert caplog.messages[-1] == "afterwards"
