"""The training loop of captioners: from captioned images to the best captioner, resumably."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from rsicd_embed.captioning import captioner_files
from rsicd_embed.captioning.caption_config import CaptionerConfig, DecoderConfig, Decoding
from rsicd_embed.captioning.caption_model import CaptionModel, MappingNetwork
from rsicd_embed.captioning.captioner import Captioner
from rsicd_embed.captioning.captioner_files import CaptionerParts
from rsicd_embed.captioning.gpt2 import Gpt2, read_gpt2
from rsicd_embed.captioning.loading_captioner import read_captioner
from rsicd_embed.captioning.vocabulary import Vocabulary, Words
from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.base import Embedder, provenance
from rsicd_embed.errors import TrainError
from rsicd_embed.files import expanded, storage_errors
from rsicd_embed.records import Provenance
from rsicd_embed.train.captioner.caption_batches import CaptionedVectors
from rsicd_embed.train.captioner.caption_settings import (
    LIKELIHOOD,
    CaptionTrainConfig,
    DecoderSettings,
)
from rsicd_embed.train.captioner.caption_step import (
    CaptionRecipe,
    first_caption_state,
    make_caption_step,
)
from rsicd_embed.train.captioner.caption_vectors import view_vectors
from rsicd_embed.train.captioner.self_critic import Reward, SelfCritic
from rsicd_embed.train.checkpoint import Checkpoints, has_checkpoints
from rsicd_embed.train.distributed import any_process, is_writer, layout, own_rows, wait_for_all
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.journal import Journal, StepLog
from rsicd_embed.train.observers import Observer, Row, grouped
from rsicd_embed.train.run_folder import RunManifest, claimed, replace_directory
from rsicd_embed.train.state import TrainState, averaged, require_sound
from rsicd_embed.train.stopping import StopRequest, stop_on_signals

EvaluateCaptions = Callable[[Sequence[str], Sequence[Sequence[str]]], dict[str, float]]
"""Metrics of captions, one per image, against the images' reference captions."""

MakeReward = Callable[[Sequence[Sequence[str]]], Reward]
"""Makes the reward of captions from the reference captions of each training image."""


@dataclass(frozen=True)
class CaptionRun:
    """A captioner being trained.

    Attributes:
        config: settings.
        out: folder of the run.
        shape: shape of the captioner.
        params: its parameters before the first step.
        vocabulary: its tokens.
        made_by: what makes the vectors.
    """

    config: CaptionTrainConfig
    out: Path
    shape: CaptionerConfig
    params: nnx.State[Any, Any]
    vocabulary: Vocabulary
    made_by: Provenance

    @property
    def best(self) -> Path:
        """Directory of the best captioner."""
        return self.out / "best"

    def parts(self, params: nnx.State[Any, Any]) -> CaptionerParts:
        """The captioner with these parameters."""
        return CaptionerParts(self.shape, params, self.vocabulary, self.made_by, str(self.best))


def train_captioner(
    config: CaptionTrainConfig,
    data: TrainingData,
    out: Path,
    embedder: Embedder,
    evaluate: EvaluateCaptions,
    reward: MakeReward,
    observers: Sequence[Observer] = (),
    vectors: Path | None = None,
) -> Row:
    """Trains on `data.train` and exports the epoch that `evaluate` scores best to `out/best`.

    As `loop.train`, it checkpoints every epoch and when a signal arrives, and the same call
    resumes. Val captions are decoded greedily.

    Args:
        config: settings of the run.
        data: the training and validation images.
        out: folder of the run, created if absent.
        embedder: makes the vectors of the images.
        evaluate: scores captions of val.
        reward: makes the reward of sampled captions, for the objectives that have one.
        observers: notified of progress, metrics and signals.
        vectors: folder that keeps the vectors of views, which runs can share; OUT/vectors if None.

    Returns:
        The journal's row of the best epoch.

    Raises:
        TrainError: the data or settings cannot be used, or a loss or parameter is not finite.
        TrainStoppedError: a signal stopped the run, which is checkpointed.
    """
    observer = grouped(observers)
    folder = out / "vectors" if vectors is None else vectors
    with (
        stop_on_signals(observer.on_interrupt if observers else None) as stop,
        _open(config, data, out, embedder) as run,
    ):
        val = _described(data.val)
        if not val:
            raise TrainError("expected captions of val images, found none; add some")
        views = view_vectors(embedder, data.train, config.views, folder, observer.on_view)
        (val_vectors,) = view_vectors(embedder, val, 1, folder, observer.on_view)
        words = config.decoder.max_words
        captioned = CaptionedVectors.of(
            views, data.train, data.weights, run.vocabulary, words, config.seed
        )

        def measure(params: nnx.State[Any, Any]) -> dict[str, float]:
            captioner = Captioner(run.parts(params), batch_size=256)
            generated = captioner.caption_vectors(
                val_vectors, Decoding("greedy", max_words=min(words, run.shape.longest - 1))
            )
            metrics = evaluate(generated.texts, [example.captions for example in val])
            return metrics | {"log_probability": float(generated.log_probabilities.mean())}

        critic = None
        if config.objective != LIKELIHOOD:
            rewards = reward([example.captions for example in data.train])
            critic = SelfCritic(run.shape, config, run.vocabulary, rewards)
        with Checkpoints(out / "checkpoints", keep=config.keep_last) as checkpoints:
            loop = _Loop(run, captioned, measure, observer, checkpoints, critic)
            return loop.run_to_the_end(stop)


def views_to_embed(config: CaptionTrainConfig, data: TrainingData) -> int:
    """Number of views that a run embeds unless their vectors are there already."""
    return len(data.train) * config.views + len(_described(data.val))


def _described(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if example.captions]


class _Loop:
    """A run with everything that its steps need."""

    def __init__(
        self,
        run: CaptionRun,
        captioned: CaptionedVectors,
        measure: Callable[[nnx.State[Any, Any]], dict[str, float]],
        observer: Observer,
        checkpoints: Checkpoints,
        critic: SelfCritic | None,
    ) -> None:
        config = run.config
        self._critic = critic
        self._run, self._captioned, self._measure = run, captioned, measure
        self._observer, self._checkpoints = observer, checkpoints
        self._per_epoch = captioned.steps(config.batch_size)
        self._steps = self._per_epoch * config.epochs
        self._layout = layout("data")
        self._own = own_rows(self._layout, config.batch_size)
        recipe = CaptionRecipe(run.shape, config, self._steps, self._layout)
        self._step = make_caption_step(recipe)

    def run_to_the_end(self, stop: StopRequest) -> Row:
        """Trains from the last checkpoint on; returns the best epoch's row."""
        config, per_epoch, steps = self._run.config, self._per_epoch, self._steps
        arrays = captioner_files.named_arrays(self._run.params)
        first = first_caption_state(arrays, config, steps, self._layout)
        state, done = self._checkpoints.restore(first)
        journal = Journal(self._run.out, done, done // per_epoch, write=is_writer())
        if done:
            self._observer.on_message(
                f"resuming {self._run.out} after step {done} of {steps}, in epoch "
                f"{done // per_epoch + 1} of {config.epochs}"
            )
        self._observer.on_start(done, steps)
        stop.deferred = True
        for epoch in range(done // per_epoch, config.epochs):
            log = StepLog(
                journal, self._observer, epoch=epoch, done=done, batch_size=config.batch_size
            )
            state = self._epoch(state, epoch, done, log, stop)
            done = (epoch + 1) * per_epoch
            row = log.epoch_row()
            require_sound(state, done)
            if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
                row = self._evaluated(row, averaged(state, self._layout), journal)
            journal.add_epoch(row)
            self._checkpoints.save(state, done)
            self._observer.on_epoch(row)
            if done < steps and any_process(bool(stop)):
                raise stop.error(done, steps)
        return journal.best(config.best_by)

    def _epoch(
        self, state: TrainState, epoch: int, done: int, log: StepLog, stop: StopRequest
    ) -> TrainState:
        size = self._run.config.batch_size
        batches = self._captioned.epoch(epoch, size, self._own, done % self._per_epoch)
        for batch in log.timed(batches):
            if self._critic:
                batch = self._critic(state, batch)
            state, metrics = self._step(state, batch)
            log.add(metrics)
            done += 1
            if done % self._per_epoch and any_process(bool(stop)):
                log.fetch()
                require_sound(state, done)
                self._checkpoints.save(state, done)
                raise stop.error(done, self._steps)
        return state

    def _evaluated(self, row: Row, params: nnx.State[Any, Any], journal: Journal) -> Row:
        """Adds metrics on val to an epoch's row; exports the captioner if it is the best so far."""
        metrics: Row = {}
        by = self._run.config.best_by
        if is_writer():
            metrics = dict(self._measure(params))
            if journal.is_best(metrics, by):
                parts = self._run.parts(params)
                replace_directory(self._run.best, lambda aside: captioner_files.save(aside, parts))
        wait_for_all("evaluated")
        return row | metrics


@contextmanager
def _open(
    config: CaptionTrainConfig, data: TrainingData, out: Path, embedder: Embedder
) -> Iterator[CaptionRun]:
    """Starts a run in `out`, or resumes the one there; locks the folder meanwhile."""
    made_by = provenance(embedder)
    with storage_errors(f"cannot write to {out}"), claimed(out):
        stored = RunManifest.read(out)
        if stored is not None and not has_checkpoints(out / "checkpoints"):
            stored = None
        manifest = RunManifest.of(config, data, made_by.fingerprint)
        if stored is not None:
            stored.require_same(out, manifest)
        start = _start(config, data, embedder.dim)
        manifest = replace(manifest, captioner=start.origin)
        if stored is None:
            manifest.write(out)
        else:
            stored.require_same(out, manifest)
        yield CaptionRun(config, out, start.shape, start.params, start.vocabulary, made_by)


@dataclass(frozen=True)
class _Start:
    """A captioner before its first step.

    Attributes:
        origin: digest of the captioner or GPT-2 that training starts from; None from scratch.
    """

    shape: CaptionerConfig
    params: nnx.State[Any, Any]
    vocabulary: Vocabulary
    origin: str | None = None


def _start(config: CaptionTrainConfig, data: TrainingData, dim: int) -> _Start:
    settings = config.decoder
    if config.init is not None:
        parts = read_captioner(config.init)
        if parts.config.vector_dim != dim:
            raise TrainError(
                f"expected a captioner of vectors of dimension {dim}, found "
                f"{parts.config.vector_dim} in {config.init}; give another init, or none"
            )
        params = jax.tree.map(np.asarray, parts.params)
        origin = _digest(parts.config, captioner_files.named_arrays(params), parts.vocabulary)
        return _Start(parts.config, params, parts.vocabulary, origin)
    if settings.init is not None:
        return _with_gpt2(config, read_gpt2(expanded(settings.init)), dim)
    vocabulary = Words.of((c for e in data.train for c in e.captions), settings.least)
    shape = CaptionerConfig(
        _own_decoder(settings, vocabulary.size), dim, settings.prefix, settings.mapping_width
    )
    params = nnx.state(CaptionModel(shape, rngs=nnx.Rngs(config.seed)))
    return _Start(shape, jax.tree.map(np.asarray, params), vocabulary)


def _with_gpt2(config: CaptionTrainConfig, gpt2: Gpt2, dim: int) -> _Start:
    settings = config.decoder
    shape = CaptionerConfig(gpt2.config, dim, settings.prefix, settings.mapping_width)
    if settings.max_words + 1 > shape.longest:
        raise TrainError(
            f"expected captions of at most {shape.longest - 1} tokens, the context of "
            f"{settings.init}, found decoder.max_words={settings.max_words}"
        )
    mapping = MappingNetwork(shape, rngs=nnx.Rngs(config.seed))
    arrays = {f"decoder.{name}": array for name, array in gpt2.arrays.items()}
    own = captioner_files.named_arrays(nnx.state(mapping))
    arrays |= {f"mapping.{name}": array for name, array in own.items()}
    params = jax.tree.map(np.asarray, captioner_files.params_of(arrays))
    origin = _digest(gpt2.config, gpt2.arrays, gpt2.vocabulary)
    return _Start(shape, params, gpt2.vocabulary, origin)


def _digest(shape: object, arrays: Mapping[str, Any], vocabulary: Vocabulary) -> str:
    """A hash of a model's shape, parameters and tokens."""
    tokens = [vocabulary.decode([token]) for token in range(vocabulary.size)]
    sha = hashlib.sha256(f"{shape!r} {tokens!r}".encode())
    for name in sorted(arrays):
        sha.update(name.encode())
        sha.update(np.ascontiguousarray(arrays[name]).data)
    return sha.hexdigest()[:16]


def _own_decoder(settings: DecoderSettings, vocab_size: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size,
        settings.prefix + settings.max_words,
        settings.width,
        settings.layers,
        settings.heads,
        4 * settings.width,
    )
