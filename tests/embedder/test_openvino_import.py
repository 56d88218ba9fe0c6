"""Side effects of importing OpenVINO on its process."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import runs_well


def test_openvino_is_imported_without_telemetry() -> None:
    """The telemetry would fork and access the network at each import."""
    runs_well(
        "import os, sys\n"
        "def forked(): raise SystemExit('a process was forked')\n"
        "os.register_at_fork(before=forked)\n"
        "import rsicd_embed.embedder.clip.backends.on_openvino\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
    )


def test_a_signal_after_models_were_destroyed(tiny_model: Path) -> None:
    """The first of two models is destroyed first; see `_lazy_openvino.core`."""
    runs_well(
        "import gc, signal, sys\n"
        "from rsicd_embed import load_embedder\n"
        "first = load_embedder(sys.argv[1], backend='openvino')\n"
        "second = load_embedder(sys.argv[1], backend='openvino')\n"
        "del first; gc.collect()\n"
        "del second; gc.collect()\n"
        "came = []\n"
        "signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "assert came == [signal.SIGTERM]\n",
        tiny_model,
    )
