"""The training loop: runs from a dataset to the best model's directory, resumably."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax

from rsicd_embed.embedder.base import Embedder
from rsicd_embed.errors import TrainError
from rsicd_embed.train import teacher
from rsicd_embed.train.card import UNKNOWN, licence_of
from rsicd_embed.train.checkpoint import Checkpoints
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distributed import any_process, is_writer, layout, own_rows, wait_for_all
from rsicd_embed.train.initialization import with_own_loss
from rsicd_embed.train.input.captioned_images import CaptionedImages
from rsicd_embed.train.input.pixels import require_readable
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.journal import Journal, StepLog, score, warn_if_never_better, warn_if_worse
from rsicd_embed.train.objective import contrastive, distilled
from rsicd_embed.train.observers import Observer, Row, grouped
from rsicd_embed.train.optimizers import frozen
from rsicd_embed.train.run_folder import Run, open_run
from rsicd_embed.train.state import (
    TrainState,
    averaged,
    every_parameter,
    initial_state,
    require_sound,
)
from rsicd_embed.train.step import Recipe, Step, make_step
from rsicd_embed.train.stopping import StopRequest, stop_on_signals
from rsicd_embed.train.teacher import Teacher

Evaluate = Callable[[Embedder], dict[str, float]]

_NO_NEGATIVES = {
    "softmax": "without negatives the softmax loss has nothing to learn from",
    "sigmoid": "without negatives the sigmoid loss only pulls all embeddings together",
}

# With several processes, steps between checks whether one of them was asked to stop.
_CHECK_EVERY = 10


def train(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    evaluate: Evaluate,
    observers: Sequence[Observer] = (),
    load_teacher: Callable[[str], Embedder] | None = None,
) -> Row:
    """Trains on `data.train` and exports the epoch that `evaluate` scores best to `out/best`.

    The model is also evaluated before training: epoch 0 of the journal, which is not exported.
    A warning is issued whenever val falls below that.

    A checkpoint is written to `out/checkpoints` after every epoch, and when SIGTERM or SIGINT
    arrives. The same call on the same `out` resumes from the last checkpoint; results are exactly
    those of a run without the interruption.

    Args:
        config: settings of the run.
        data: the training and validation images.
        out: folder of the run, created if absent.
        evaluate: measures a model on val; called every `config.eval_every` epochs.
        observers: notified of progress, metrics and signals.
        load_teacher: loads the embedder that `config.teacher.model` names.

    Returns:
        The journal's row of the best epoch.

    Raises:
        TrainError: the data or settings cannot be used, val lacks the metric to choose by, or a
            loss or parameter is not finite; the last checkpoint remains.
        TrainStoppedError: a signal stopped the run, which is checkpointed.
    """
    observer, config = grouped(observers), with_own_loss(config)
    with (
        stop_on_signals(observer.on_interrupt if observers else None) as stop,
        open_run(config, data, out) as run,
        ExitStack() as stack,
    ):
        # Report errors in the settings before an hour of reading images.
        _require_possible(run, data)
        embedder = None
        if config.teacher.model is not None and load_teacher is not None:
            embedder = load_teacher(config.teacher.model)
        if is_writer():
            require_readable(data.val)
        images = stack.enter_context(
            CaptionedImages(
                data.train,
                run.start.tokenizer,
                image_size=run.start.shape.image_size,
                seed=config.seed,
                weights=data.weights,
                data=config.data,
                augment=config.augment,
                least=config.batch_size,
                advance=observer.on_image,
            )
        )
        require_negatives(images, config)
        vectors = None
        if embedder is not None:
            vectors = teacher.teach(
                embedder, data.train, images.captions, config, out / "teacher", observer.on_view
            )
        with Checkpoints(out / "checkpoints", keep=config.keep_last) as checkpoints:
            loop = _Loop(run, images, vectors, evaluate, observer, checkpoints)
            return loop.run_to_the_end(stop)


def _require_possible(run: Run, data: TrainingData) -> None:
    """Raises if the settings do not fit the model, the devices or val; see `train`."""
    config, start = run.config, run.start
    if config.batch_size == 1:
        raise TrainError(
            f"expected a batch of at least 2 images, found 1: {_NO_NEGATIVES[config.step.loss]}; "
            "give a larger --batch-size"
        )
    objective = contrastive(config.step)
    # Creating the recipe checks it.
    Recipe(start.shape, config, start.preprocessor, 1, objective, layout(config.step.shard))
    frozen(every_parameter(start.params, objective), config.step.freeze)
    classes = {example.label for example in data.val if example.label}
    if config.best_by == "zeroshot_top1" and len(classes) < 2:
        raise TrainError(
            f"expected val images of several classes for best_by=zeroshot_top1, found "
            f"{len(classes)}; give --set best_by=mr"
        )


def require_negatives(images: CaptionedImages, config: TrainConfig) -> None:
    """Raises if no batch has negatives for the contrastive loss; warns if some lack them.

    A teacher's vectors differ nevertheless, so with a teacher there is only a warning.
    """
    lacking = images.without_negatives(0, config.batch_size)
    steps = images.steps(config.batch_size)
    if not lacking:
        return
    reason = (
        f"in {lacking} of the {steps} batches of the first epoch all images share a caption or "
        f"are the same file: {_NO_NEGATIVES[config.step.loss]}"
    )
    if lacking == steps and config.teacher.model is None:
        raise TrainError(f"{reason}; expected images with different captions")
    warnings.warn(f"{reason}; a larger --batch-size mixes them", stacklevel=3)


class _Loop:
    """A run with everything that its steps need."""

    def __init__(
        self,
        run: Run,
        images: CaptionedImages,
        vectors: Teacher | None,
        evaluate: Evaluate,
        observer: Observer,
        checkpoints: Checkpoints,
    ) -> None:
        config, start = run.config, run.start
        self._run, self._images, self._teacher = run, images, vectors
        self._evaluate, self._observer, self._checkpoints = evaluate, observer, checkpoints
        self._per_epoch = images.steps(config.batch_size)
        self._steps = self._per_epoch * config.epochs
        self._layout = layout(config.step.shard)
        self._objective = contrastive(config.step)
        if vectors is not None:
            same = vectors.dim == start.shape.dim
            self._objective = distilled(self._objective, config.teacher, vectors.scale, same)
        recipe = Recipe(
            start.shape, config, start.preprocessor, self._steps, self._objective, self._layout
        )
        self._own = own_rows(self._layout, config.batch_size)
        masked = dataclasses.replace(recipe, keep_patches=config.step.keep_patches)
        self._whole = make_step(recipe)
        # Share one program if the steps are equal: compiling a large model takes a minute.
        self._masked = (
            self._whole if masked.kept_patches == recipe.kept_patches else make_step(masked)
        )

    def run_to_the_end(self, stop: StopRequest) -> Row:
        """Trains from the last checkpoint on; returns the best epoch's row."""
        config, per_epoch, steps = self._run.config, self._per_epoch, self._steps
        unmasked = math.ceil(config.epochs * config.step.unmasked)
        first = initial_state(self._run.start.params, config, steps, self._objective, self._layout)
        state, done = self._checkpoints.restore(first)
        journal = Journal(self._run.out, done, done // per_epoch, write=is_writer())
        self._report_plan(done)
        self._observer.on_start(done, steps)
        if done == 0:
            row = self._measure({"epoch": 0, "step": 0}, averaged(state, self._layout), journal)
            journal.add_epoch(row)
            self._observer.on_epoch(row)
        stop.deferred = True
        for epoch in range(done // per_epoch, config.epochs):
            log = StepLog(
                journal, self._observer, epoch=epoch, done=done, batch_size=config.batch_size
            )
            step = self._whole if epoch >= config.epochs - unmasked else self._masked
            state = self._epoch(step, state, epoch, done, log, stop)
            done = (epoch + 1) * per_epoch
            row = log.epoch_row()
            require_sound(state, done)
            if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                row = self._measure(row, averaged(state, self._layout), journal)
            journal.add_epoch(row)
            self._checkpoints.save(state, done)
            self._observer.on_epoch(row)
            if done < steps and any_process(bool(stop)):
                raise stop.error(done, steps)
        if is_writer():
            if not self._run.best.exists():
                raise TrainError(
                    f"expected the best model in {self._run.best}, found none; restore it, or give "
                    "another --out"
                )
            warn_if_never_better(journal.epochs, config.best_by)
        return journal.best(config.best_by)

    def _epoch(
        self, step: Step, state: TrainState, epoch: int, done: int, log: StepLog, stop: StopRequest
    ) -> TrainState:
        """Runs the steps of an epoch that follow the first `done` steps of the run."""
        config, per_epoch = self._run.config, self._per_epoch
        every = config.checkpoint_every
        check_every = 1 if jax.process_count() == 1 else _CHECK_EVERY
        for batch in log.timed(self._images.epoch(epoch, config.batch_size, done % per_epoch)):
            arrays = batch.arrays(self._own)
            if self._teacher is not None:
                arrays |= self._teacher.arrays(batch, epoch, self._own)
            state, metrics = step(state, arrays)
            log.add(metrics)
            done += 1
            stopping = done % check_every == 0 and any_process(bool(stop))
            if done % per_epoch and (stopping or (every and done % every == 0)):
                log.fetch()
                require_sound(state, done)
                self._checkpoints.save(state, done)
                if stopping:
                    raise stop.error(done, self._steps)
        return state

    def _measure(self, row: Row, params: Any, journal: Journal) -> Row:
        """Adds metrics on val to an epoch's row; exports the model if it is the best so far."""
        metrics: Row = {}
        if is_writer():
            metrics = dict(self._evaluate(self._run.embedder(params)))
            by = self._run.config.best_by
            if score(metrics, by) == -math.inf:
                raise TrainError(
                    f"expected val to give {by}, found {', '.join(metrics) or 'nothing'}; "
                    "give another --set best_by"
                )
            if row["epoch"]:
                if journal.is_best(metrics, by):
                    self._run.export(params, row | metrics)
                warn_if_worse(row | metrics, journal.epochs, by)
        wait_for_all("evaluated")
        return row | metrics

    def _report_plan(self, done: int) -> None:
        """Reports where a run resumes, an unknown licence, and images that epochs leave out."""
        config, steps, out = self._run.config, self._steps, self._run.out
        report = self._observer.on_message
        if done == steps:
            report(f"all {steps} steps of the run in {out} are done")
        elif done:
            report(
                f"resuming {out} after step {done} of {steps}, in epoch "
                f"{done // self._per_epoch + 1} of {config.epochs}"
            )
        elif config.model.init and licence_of(config, self._run.start.licence) == UNKNOWN:
            report(
                f"the licence of {config.model.init} is unknown, and so is that of the model "
                "trained from it: --set model.license=… names it in the model card"
            )
        if left_out := len(self._images) % config.batch_size:
            report(
                f"each epoch leaves out {left_out} of {len(self._images)} images, at random, "
                f"because they do not fill a batch of {config.batch_size}"
            )
