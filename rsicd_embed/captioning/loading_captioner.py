"""Loads captioners by the names that `--captioner` accepts."""

from __future__ import annotations

from pathlib import Path

from rsicd_embed.captioning import captioner_files
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.captioning.captioner_files import CaptionerParts
from rsicd_embed.errors import ModelError
from rsicd_embed.files import expanded

BUNDLED = "bundled"
_BUNDLED_DIRECTORY = Path(__file__).parent / "bundled"


def load_captioner(name: str | Path | None = None, *, batch_size: int = 64) -> Captioner:
    """Loads a captioner.

    Args:
        name: as for `read_captioner`.
        batch_size: vectors captioned at a time.

    Raises:
        ModelError: there is no captioner, or a malformed one.
        WeightsError: its weights do not match its config.
    """
    return Captioner(read_captioner(name), batch_size=batch_size)


def read_captioner(name: str | Path | None = None) -> CaptionerParts:
    """Reads a captioner's parameters and vocabulary.

    Args:
        name: None or "bundled" for the bundled captioner, or a directory that `train caption`
            wrote: the folder of a run, or its `best`.

    Raises:
        ModelError: there is no captioner, or a malformed one.
        WeightsError: its weights do not match its config.
    """
    if name is None or str(name) == BUNDLED:
        directory, shown = _BUNDLED_DIRECTORY, BUNDLED
    else:
        directory, shown = expanded(name), str(name)
        if not (directory / captioner_files.CONFIG).is_file():
            directory = directory / "best"
    if not (directory / captioner_files.CONFIG).is_file():
        raise ModelError(
            f"expected a captioner in {shown}, found no {captioner_files.CONFIG}; train one with "
            "`rsicd-embed train caption`, or omit --captioner for the bundled one"
        )
    return captioner_files.read(directory, shown)
