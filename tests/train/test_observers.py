"""Plots of runs, TensorBoard files, and calls to Weights & Biases."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from rsicd_embed.errors import TrainError
from rsicd_embed.train.journal import Journal, plot
from rsicd_embed.train.observers import TensorBoard, WeightsAndBiases

STEPS = [{"step": n, "epoch": (n + 9) // 10, "loss": 5 / n} for n in range(1, 41)]
EPOCHS = [
    {"epoch": n, "step": 10 * n, "loss": 3 / n, "val_loss": 4 / n, "mr": n / 20}
    for n in range(1, 5)
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    journal = Journal(tmp_path, 0, 0)
    journal.add_steps(STEPS)
    journal.add_epoch({"epoch": 0, "step": 0, "val_loss": 4.5, "mr": 0.01})
    for row in EPOCHS:
        journal.add_epoch(row)
    return tmp_path


def test_plots_of_one_run_and_of_two(run: Path) -> None:
    plot({"run": run}, run / "one.png")
    plot({"a": run, "b": run}, run / "two.png")
    first, second = (Image.open(run / name).convert("RGB") for name in ("one.png", "two.png"))
    assert first.size == second.size
    assert first.width > 1000
    assert first.tobytes() != second.tobytes()  # the second run has its own colour and labels
    with pytest.raises(TrainError, match=r"expected the log of a run in .*absent, found none"):
        plot({"absent": run / "absent"}, run / "none.png")
    assert not (run / "none.png").exists()


@pytest.mark.parametrize(
    ("figures", "words", "last"),
    [
        ({}, "train (softmax)", 5 / 40),
        ({"bias": -10.0}, "train (sigmoid)", 5 / 40),
        ({"contrastive": 2.0, "affinity": 1.0}, "train (softmax)", 2.0),
        ({"contrastive": 2.0, "affinity": 1.0, "bias": -10.0}, "train (sigmoid)", 2.0),
    ],
)
def test_labels_name_the_loss(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: dict[str, float],
    words: str,
    last: float,
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **options: _keep(drawn, figure, path)
    )
    journal = Journal(tmp_path, 0, 0)
    journal.add_steps([row | figures for row in STEPS])
    journal.add_epoch(EPOCHS[0])
    plot({"run": tmp_path}, tmp_path / "curves.png")
    axes = drawn[0].axes[0]
    lines, labels = axes.get_legend_handles_labels()
    assert labels == [words, "val (softmax)"]
    assert axes.get_ylabel() == "loss"
    assert lines[0].get_ydata()[-1] == pytest.approx(last, rel=0.05)


def _keep(drawn: list[Figure], figure: Figure, path: Path) -> None:
    drawn.append(figure)
    path.touch()


def test_tensorboard_after_resuming(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with TensorBoard(tmp_path) as first:
        first.on_start(0, 40)
        first.on_steps(STEPS[:20])
        first.on_epoch(EPOCHS[0])
    with TensorBoard(tmp_path) as second:
        second.on_start(10, 40)
        second.on_steps(STEPS[10:])
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    content = b"".join(path.read_bytes() for path in files)
    assert content.count(b"train/loss") == 20 + 30, content.count(b"train/loss")
    assert b"val/mr" in content


def test_weights_and_biases_resumes_under_its_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[dict[str, float], int]] = []
    began: list[dict[str, Any]] = []

    def init(**options: Any) -> Any:
        began.append(options)
        return SimpleNamespace(
            id="abc", log=lambda row, step: logged.append((row, step)), finish=lambda: None
        )

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with WeightsAndBiases("tiles", tmp_path, {}):
        pass  # a refused run
    assert not began
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        with WeightsAndBiases("tiles", tmp_path, {"epochs": 4}) as there:
            there.on_start(0, 40)
            there.on_steps(STEPS[:1])
            there.on_epoch(EPOCHS[0])
    assert [options["id"] for options in began] == [None, "abc"]
    assert began[0]["project"] == "tiles"
    assert began[0]["config"] == {"epochs": 4}
    assert logged[0] == ({"train/loss": 5.0}, 1)
    assert logged[1] == ({"val/loss": 3.0, "val/val_loss": 4.0, "val/mr": 0.05}, 10)


@pytest.mark.parametrize("module", ["tensorboardX", "wandb"])
def test_missing_libraries_are_reported(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrainError, match=f"needs? {module}, which is not installed: pip install"):
        if module == "wandb":
            WeightsAndBiases("tiles", tmp_path, {})
        else:
            TensorBoard(tmp_path)
