"""A training run from a data set to a Hugging Face directory: resumable, measured on val."""

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
from rsicd_embed.errors import TrainError, TrainStoppedError
from rsicd_embed.train import mesh, teacher
from rsicd_embed.train.baseline import score, warn_if_never_better, warn_if_worse
from rsicd_embed.train.card import UNKNOWN, licence_of
from rsicd_embed.train.checkpoint import Checkpoints
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distillation import taught
from rsicd_embed.train.distributed import any_process, is_writer, own_rows, wait_for_all
from rsicd_embed.train.freezing import frozen
from rsicd_embed.train.input.captioned_images import CaptionedImages
from rsicd_embed.train.input.pixels import Advance, require_readable
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.journal import Journal, Row
from rsicd_embed.train.objective import contrastive
from rsicd_embed.train.observers.base import Observer
from rsicd_embed.train.run_folder import Run, open_run
from rsicd_embed.train.state import (
    TrainState,
    averaged,
    every_parameter,
    initial_state,
    require_sound,
)
from rsicd_embed.train.step import Recipe, Step, make_step
from rsicd_embed.train.steplog import StepLog
from rsicd_embed.train.stopping import OnInterrupt, StopRequest, stop_on_signals
from rsicd_embed.train.teacher import Teacher

Evaluate = Callable[[Embedder], dict[str, float]]
Notify = Callable[[str], object]

# Why a batch without negatives teaches nothing, by the loss.
_NO_NEGATIVES = {
    "softmax": "without a negative the softmax loss has nothing to learn from",
    "sigmoid": "without a negative the sigmoid loss only draws all embeddings together",
}

# Steps between questions to other processes whether one of them was asked to stop.
_ASK_EVERY = 10


def train(
    config: TrainConfig,
    data: TrainingData,
    out: Path,
    evaluate: Evaluate,
    observers: Sequence[Observer] = (),
    load_teacher: Callable[[str], Embedder] | None = None,
    on_image: Advance = lambda done: None,
    on_view: Advance = lambda done: None,
    on_interrupt: OnInterrupt | None = None,
    notify: Notify = lambda line: None,
) -> Row:
    """Trains on `data.train`; `out/best` is the epoch that did best under `evaluate`.

    The model is measured before the first step too: epoch 0 of the journal, which is not exported.
    A warning says when val gets worse than that.

    Every epoch is checkpointed in `out/checkpoints`, and the step at which SIGTERM or SIGINT came.
    The same call on the same `out` goes on from the last checkpoint, and computes what it would
    have computed without the stop. Observers get the journal's rows.

    Args:
        config: of the run.
        data: what is trained on.
        out: folder of the run, made if absent.
        evaluate: measures a model on val; called every `config.eval_every` epochs.
        observers: are told what is measured.
        load_teacher: the embedder that `config.teacher.model` names, if it names one.
        on_image: called with the number of images of `data.train` just read.
        on_view: called with the number of views of them that a teacher has just embedded.
        on_interrupt: called at once with each SIGTERM or SIGINT; see `stop_on_signals`.
        notify: called with lines for a person: where the run resumes, what an epoch leaves out.

    Returns:
        The row of the best epoch after training began.

    Raises:
        TrainError: the data or the settings cannot be used, val does not tell what is best, or a
            loss or a parameter is not finite; the last checkpoint stays.
        TrainStoppedError: a signal came; the run is checkpointed.
    """
    with (
        stop_on_signals(on_interrupt) as stop,
        open_run(config, data, out) as run,
        ExitStack() as stack,
    ):
        # What can be refused at once is refused before an hour of reading and teaching.
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
                advance=on_image,
            )
        )
        require_negatives(images, config)
        known = None
        if embedder is not None:
            known = teacher.teach(
                embedder, data.train, images.captions, config, out / "teacher", on_view
            )
        with Checkpoints(out / "checkpoints", keep=config.keep_last) as checkpoints:
            loop = _Loop(run, images, known, evaluate, observers, checkpoints, notify)
            return loop.run_to_the_end(stop)


def _require_possible(run: Run, data: TrainingData) -> None:
    """Refuses settings that fit neither the model, the devices nor val; see `train`."""
    config, start = run.config, run.start
    if config.batch_size == 1:
        raise TrainError(
            f"expected a batch of 2 images or more, found 1: {_NO_NEGATIVES[config.step.loss]}; "
            "give a larger --batch-size"
        )
    contrast = contrastive(config.step)
    # It checks itself.
    Recipe(start.shape, config, start.preprocessor, 1, contrast, mesh.layout(config.step.shard))
    frozen(every_parameter(start.params, contrast), config.step.freeze)
    classes = {example.label for example in data.val if example.label}
    if config.best_by == "zeroshot_top1" and len(classes) < 2:
        raise TrainError(
            f"expected val images of several classes for best_by=zeroshot_top1, found "
            f"{len(classes)}; give --set best_by=mr"
        )


def require_negatives(images: CaptionedImages, config: TrainConfig) -> None:
    """Refuses images and captions that a contrastive loss cannot tell apart, and warns of a few.

    A teacher's vectors differ all the same.

    Raises:
        TrainError: no batch of the first epoch has a negative.
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
    """A run with all that its steps need."""

    def __init__(
        self,
        run: Run,
        images: CaptionedImages,
        known: Teacher | None,
        evaluate: Evaluate,
        observers: Sequence[Observer],
        checkpoints: Checkpoints,
        notify: Notify,
    ) -> None:
        config, start = run.config, run.start
        self._notify = notify
        self._run, self._images, self._teacher = run, images, known
        self._evaluate, self._observers, self._checkpoints = evaluate, observers, checkpoints
        self._per_epoch = images.steps(config.batch_size)
        self._steps = self._per_epoch * config.epochs
        self._layout = mesh.layout(config.step.shard)
        self._objective = contrastive(config.step)
        if known is not None:
            same = known.dim == start.shape.dim
            self._objective = taught(self._objective, config.teacher, known.scale, same)
        recipe = Recipe(
            start.shape, config, start.preprocessor, self._steps, self._objective, self._layout
        )
        self._own = own_rows(self._layout, config.batch_size)
        masked = dataclasses.replace(recipe, keep_patches=config.step.keep_patches)
        self._whole = make_step(recipe)
        # One program where they are the same: compiling it takes a minute for a large model.
        self._masked = self._whole if masked.kept == recipe.kept else make_step(masked)

    def run_to_the_end(self, stop: StopRequest) -> Row:
        """From the last checkpoint on; gives the best epoch's row."""
        config, per_epoch, steps = self._run.config, self._per_epoch, self._steps
        unmasked = math.ceil(config.epochs * config.step.unmasked)
        first = initial_state(self._run.start.params, config, steps, self._objective, self._layout)
        state, done = self._checkpoints.restore(first)
        journal = Journal(self._run.out, done, done // per_epoch, write=is_writer())
        self._tell_plan(done)
        for observer in self._observers:
            observer.on_start(done, steps)
        if done == 0:
            row = self._measure({"epoch": 0, "step": 0}, averaged(state, self._layout), journal)
            journal.add_epoch(row)
            for observer in self._observers:
                observer.on_epoch(row)
        stop.deferred = True
        for epoch in range(done // per_epoch, config.epochs):
            log = StepLog(journal, self._observers, epoch=epoch, done=done, batch=config.batch_size)
            step = self._whole if epoch >= config.epochs - unmasked else self._masked
            state = self._epoch(step, state, epoch, done, log, stop)
            done = (epoch + 1) * per_epoch
            row = log.epoch_row()
            require_sound(state, done)
            if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                row = self._measure(row, averaged(state, self._layout), journal)
            journal.add_epoch(row)
            self._checkpoints.save(state, done)
            for observer in self._observers:
                observer.on_epoch(row)
            if done < steps and any_process(bool(stop)):
                raise _stopped(stop, done, steps)
        if is_writer() and not self._run.best.exists():
            raise TrainError(
                f"expected the best model in {self._run.best}, found none; bring it back, or give "
                "another --out"
            )
        if is_writer():
            warn_if_never_better(journal.epochs, config.best_by)
        return max(journal.trained, key=lambda row: score(row, config.best_by))

    def _epoch(
        self, step: Step, state: TrainState, epoch: int, done: int, log: StepLog, stop: StopRequest
    ) -> TrainState:
        """The steps of an epoch after the first `done` of the run."""
        config, per_epoch = self._run.config, self._per_epoch
        every = config.checkpoint_every
        ask_every = 1 if jax.process_count() == 1 else _ASK_EVERY
        for batch in log.waiting(self._images.epoch(epoch, config.batch_size, done % per_epoch)):
            arrays = batch.arrays(self._own)
            if self._teacher is not None:
                arrays |= self._teacher.arrays(batch, epoch, self._own)
            state, figures = step(state, arrays)
            log.add(figures)
            done += 1
            stopping = done % ask_every == 0 and any_process(bool(stop))
            if done % per_epoch and (stopping or (every and done % every == 0)):
                log.look()
                require_sound(state, done)
                self._checkpoints.save(state, done)
                if stopping:
                    raise _stopped(stop, done, self._steps)
        return state

    def _measure(self, row: Row, params: Any, journal: Journal) -> Row:
        """An epoch's row with the figures of val; exports the model if it is the best so far."""
        figures: Row = {}
        if is_writer():
            figures = dict(self._evaluate(self._run.embedder(params)))
            by = self._run.config.best_by
            if score(figures, by) == -math.inf:
                raise TrainError(
                    f"expected val to tell {by}, found {', '.join(figures) or 'nothing'}; "
                    "give another --set best_by"
                )
            if row["epoch"]:
                best = max((score(one, by) for one in journal.trained), default=-math.inf)
                if score(figures, by) > best:
                    self._run.export(params, row | figures)
                warn_if_worse(row | figures, journal.epochs, by)
        wait_for_all("evaluated")
        return row | figures

    def _tell_plan(self, done: int) -> None:
        """Says where a run resumes, and what its epochs leave out."""
        config, steps, out = self._run.config, self._steps, self._run.out
        if done == steps:
            self._notify(f"all {steps} steps of the run in {out} are done")
        elif done:
            self._notify(
                f"resuming {out} after step {done} of {steps}, in epoch "
                f"{done // self._per_epoch + 1} of {config.epochs}"
            )
        if (
            done == 0
            and config.model.init
            and licence_of(config, self._run.start.licence) == UNKNOWN
        ):
            self._notify(
                f"the licence of {config.model.init} is unknown, and so is that of the model "
                "trained from it: --set model.license=… names it in the card"
            )
        if left_out := len(self._images) % config.batch_size:
            self._notify(
                f"each epoch leaves out {left_out} of {len(self._images)} images, another draw "
                f"each time: they do not fill a batch of {config.batch_size}"
            )


def _stopped(stop: StopRequest, done: int, steps: int) -> TrainStoppedError:
    return TrainStoppedError(
        f"stopped by {stop.name} after step {done} of {steps}, which is checkpointed; "
        "run the same command again to go on"
    )
