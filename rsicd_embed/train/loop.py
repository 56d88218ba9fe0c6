"""A training run from a data set to a Hugging Face directory: resumable, measured on val."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.errors import TrainError
from rsicd_embed.files import storage_errors, sync_folder, write_file
from rsicd_embed.train.checkpoint import Checkpoints
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.data import CaptionedImages, stored_side
from rsicd_embed.train.run import Run, open_run
from rsicd_embed.train.step import State, initial_state, jitted_step, make_step

Evaluate = Callable[[Embedder], dict[str, float]]
Report = Callable[[dict[str, Any]], None]


def train(
    config: TrainConfig,
    examples: Sequence[Example],
    out: Path,
    evaluate: Evaluate,
    report: Report = lambda row: None,
) -> dict[str, Any]:
    """Trains from scratch on `examples`; `out/best` is the model that did best under `evaluate`.

    Best is the highest mean of zero-shot top-1 and retrieval mR. Every epoch is checkpointed in
    `out/checkpoints`; the same call on the same `out` goes on where it stopped. `out/metrics.jsonl`
    has a row an epoch, which `report` is given too.

    Returns:
        The best epoch's row.

    Raises:
        TrainError: the data cannot be used, or the loss is not finite; the last checkpoint stays.
    """
    with open_run(config, examples, out) as run:
        return _train(run, examples, evaluate, report)


def score(row: dict[str, Any]) -> float:
    """What the best epoch is chosen by; -1 for an epoch that was not evaluated."""
    if "mr" not in row:
        return -1.0
    return float(row["mr"] + row.get("zeroshot_top1", row["mr"])) / 2


def _train(
    run: Run, examples: Sequence[Example], evaluate: Evaluate, report: Report
) -> dict[str, Any]:
    config, out = run.config, run.out
    data = CaptionedImages(
        examples,
        run.start.tokenizer,
        side=stored_side(run.start.shape.image_size),
        class_captions=config.data.class_captions,
        seed=config.seed,
    )
    if config.batch_size > len(data):
        raise TrainError(
            f"expected a batch of at most the {len(data)} images of the train split, "
            f"found {config.batch_size}; give a smaller --batch-size"
        )
    if config.batch_size % jax.device_count():
        raise TrainError(
            f"expected a batch divisible by the {jax.device_count()} devices, "
            f"found {config.batch_size}; give another --batch-size"
        )
    steps = len(data) // config.batch_size * config.epochs
    shape = run.start.shape
    graph = nnx.graphdef(nnx.eval_shape(lambda: Clip(shape, rngs=nnx.Rngs(0))))
    state = initial_state(run.start.params, config, steps)

    def step_with(keep: float) -> Any:
        return make_step(
            jitted_step(graph, shape, config, run.start.preprocessor, steps, keep_patches=keep)
        )

    masked, whole = step_with(config.step.keep_patches), step_with(1.0)
    rows = _read_rows(out / "metrics.jsonl")
    with Checkpoints(out / "checkpoints") as checkpoints:
        state, first = checkpoints.restore(state)
        if len(rows) < first:
            raise TrainError(
                f"{out / 'metrics.jsonl'}: expected the log of {first} epochs, found {len(rows)}; "
                "bring it back, or give another --out"
            )
        rows = rows[:first]
        for epoch in range(first, config.epochs):
            late = epoch >= config.epochs - math.ceil(config.epochs * config.step.unmasked)
            row: dict[str, Any] = {"epoch": epoch + 1}
            state, measured = _one_epoch(whole if late else masked, state, data, config, epoch)
            row |= measured
            if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                row |= evaluate(run.embedder(state.params))
                if score(row) > max(map(score, rows), default=-1.0):
                    run.export(state.params)
            rows.append(row)
            _write_rows(out / "metrics.jsonl", rows)
            checkpoints.save(state, epoch + 1)
            report(row)
    return max(rows, key=score)


def _one_epoch(
    step: Any, state: State, data: CaptionedImages, config: TrainConfig, epoch: int
) -> tuple[State, dict[str, Any]]:
    started = time.perf_counter()
    losses = []
    for batch in data.epoch(epoch, config.batch_size):
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])
    values = np.asarray(jax.device_get(losses), np.float64)
    if not np.isfinite(values).all():
        bad = epoch * len(values) + int(np.flatnonzero(~np.isfinite(values))[0])
        raise TrainError(
            f"the loss is not finite at step {bad}; the last good checkpoint is kept: "
            "give a lower --learning-rate"
        )
    seconds = time.perf_counter() - started
    return state, {
        "loss": float(values.mean()),
        "seconds": round(seconds, 1),
        "images_per_s": round(len(values) * config.batch_size / seconds, 1),
    }


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with storage_errors(f"cannot write {path}"):
        write_file(path, lambda aside: aside.write_text(text, "utf-8"))
        sync_folder(path.parent)
