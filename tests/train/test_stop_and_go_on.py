"""A run stopped by a signal or killed resumes exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsicd_embed.datasets import captioned
from rsicd_embed.errors import TrainStoppedError
from rsicd_embed.evaluation.evaluator import Evaluator
from rsicd_embed.train.config import ModelConfig, StepConfig, TrainConfig
from rsicd_embed.train.input.training_data import training_source
from rsicd_embed.train.journal import read
from rsicd_embed.train.loop import train
from tests.train.test_run import Watch

# The first epochs of a tiny model may be worse than chance on a dozen images.
pytestmark = pytest.mark.filterwarnings(
    "ignore:epoch .* is worse on val", "ignore:no epoch is as good on val"
)

CONFIG = TrainConfig(
    ModelConfig(shape="tiny"),
    step=StepConfig(keep_patches=1.0, ema=0.9),
    epochs=3,
    batch_size=6,
    eval_every=3,
    checkpoint_every=1,
)


@pytest.fixture(scope="module")
def whole(captioned_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    evaluate = Evaluator(captioned.load(captioned_folder).split("val"), loss_batch=6)
    train(CONFIG, training_source([(captioned_folder, 1.0)]), out, evaluate)
    return out


def same_run(run: Path, other: Path) -> None:
    """Asserts equal steps and byte-identical models."""
    assert read(run / "steps.jsonl") == read(other / "steps.jsonl")
    for path in (run / "best").iterdir():
        assert path.read_bytes() == (other / "best" / path.name).read_bytes(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_an_epoch(
    number: signal.Signals, whole: Path, captioned_folder: Path, tmp_path: Path
) -> None:
    sent: list[int] = []

    def ask_to_stop(rows: Any) -> None:
        if not sent:  # a second signal would not be recorded
            sent.append(number)
            os.kill(os.getpid(), number)

    data = training_source([(captioned_folder, 1.0)])
    evaluate = Evaluator(data.val, loss_batch=6)
    watch = Watch(on_steps=ask_to_stop)
    with pytest.raises(TrainStoppedError, match=rf"stopped by {number.name} after step \d+ of 12"):
        train(CONFIG, data, tmp_path, evaluate, [watch])
    done = len(read(tmp_path / "steps.jsonl"))
    assert 0 < done < 12
    again = Watch()
    train(CONFIG, data, tmp_path, evaluate, [again])
    assert again.lines == [
        f"resuming {tmp_path} after step {done} of 12, in epoch {done // 4 + 1} of 3"
    ]
    assert again.started == (done, 12)
    same_run(tmp_path, whole)


@pytest.mark.slow
def test_kill(whole: Path, captioned_folder: Path, tmp_path: Path) -> None:
    words = ["--dataset", captioned_folder, "--out", tmp_path, "--shape", "tiny", "--epochs", 3]
    words += ["--batch-size", 6, "--eval-every", 3, "--keep-patches", 1]
    words += ["--set", "step.ema=0.9", "--set", "checkpoint_every=1", "--json"]
    program = "from rsicd_embed.cli import main; main()"
    command = [sys.executable, "-c", program, "train", *map(str, words)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("epoch 1"):
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout)["epoch"] == 3
    same_run(tmp_path, whole)
