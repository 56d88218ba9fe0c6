"""One training run from the command line, watched; for the commands that train."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.orbax_errors import suppress_orbax_tracebacks
from rsicd_embed.cli.train.train_progress import ShownProgress
from rsicd_embed.cli.train.train_settings import training_extra

if TYPE_CHECKING:
    from rsicd_embed.train.config import TrainConfig
    from rsicd_embed.train.input.training_data import TrainingData


def run(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    *,
    tensorboard: bool = False,
    wandb: str | None = None,
    cluster: bool = False,
) -> dict[str, Any] | None:
    """One training run, watched; gives the best epoch's row.

    Of several processes one measures, and has something to tell: the others get None.
    """
    import rsicd_embed

    with training_extra():
        from rsicd_embed.evaluation.evaluator import Evaluator
        from rsicd_embed.train import distributed, plot
        from rsicd_embed.train.config import parse
        from rsicd_embed.train.loop import train as train_on
        from rsicd_embed.train.observers.base import Observer
        from rsicd_embed.train.observers.tensorboard import TensorBoard
        from rsicd_embed.train.observers.wandb import WeightsAndBiases

    distributed.connect(detect=cluster)
    evaluate = Evaluator(data.val, loss_batch=config.batch_size)
    debug = bool(click.get_current_context().find_root().meta.get("debug"))
    with suppress_orbax_tracebacks(debug=debug), ExitStack() as stack:
        observers: list[Observer] = []
        told: dict[str, Callable[[Any], object]] = {}
        if distributed.is_writer():
            shown = stack.enter_context(ShownProgress(config, len(data.train)))
            told = {
                "on_image": shown.on_image,
                "on_view": shown.on_view,
                "on_interrupt": shown.on_interrupt,
                "notify": shown.tell,
            }
            observers.append(shown)
            if tensorboard:
                observers.append(stack.enter_context(TensorBoard(out / "tensorboard")))
            if wandb:
                there = WeightsAndBiases(wandb, out / "wandb", parse.flat(config))
                observers.append(stack.enter_context(there))
        best = train_on(config, data, out, evaluate, observers, rsicd_embed.load_embedder, **told)
    if not distributed.is_writer():
        return None
    plot.draw({out.name: out}, out / "curves.png")
    return best
