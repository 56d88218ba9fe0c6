"""Self-critical training: captions sampled from the captioner, weighted by their reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rsicd_embed.captioning import captioner_files, decoding
from rsicd_embed.captioning.caption_config import CaptionerConfig, Decoding
from rsicd_embed.captioning.vocabulary import Vocabulary
from rsicd_embed.train.captioner.caption_settings import CaptionTrainConfig
from rsicd_embed.train.captioner.caption_step import (
    IMAGES,
    TOKENS,
    VECTORS,
    WEIGHTS,
    noisy,
    step_keys,
)
from rsicd_embed.train.state import TrainState

Reward = Callable[[Sequence[str], Sequence[int]], np.ndarray]
"""Rewards, float (n,), of captions of images with these numbers in the train split."""


class SelfCritic:
    """Replaces the captions of a batch by sampled ones, weighted by their advantage.

    The advantage of a caption is its reward minus the mean reward of the image's other samples
    (arXiv:2003.09971), so that the step's loss is the policy gradient.
    """

    def __init__(
        self,
        shape: CaptionerConfig,
        config: CaptionTrainConfig,
        vocabulary: Vocabulary,
        reward: Reward,
    ) -> None:
        """Compiles nothing yet."""
        self._config, self._vocabulary, self._reward = config, vocabulary, reward
        words = min(config.decoder.max_words, shape.longest - 1)
        sampling = Decoding("nucleus", top_p=1.0, no_repeat=0, max_words=words)
        self._decode = decoding.decoder(shape, sampling, vocabulary.end, tuple(vocabulary.unwanted))

    def __call__(self, state: TrainState, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples `samples` captions of each vector of the batch with the current parameters.

        Returns:
            Vectors float32 (b × samples, d), tokens int32 (b × samples, t), and their weights.
        """
        config, samples = self._config, self._config.samples
        vectors = np.repeat(batch[VECTORS], samples, axis=0)
        # The step adds the same noise, since it has the same key and shape.
        noise, _, sampling = step_keys(config.seed, _local(state.step))
        params = captioner_files.params_of(
            {name: _local(value) for name, value in (state.trained | state.frozen).items()}
        )
        decoded = self._decode(
            params,
            noisy(jnp.asarray(vectors), config.noise, noise),
            jax.random.split(sampling, len(vectors)),
        )
        tokens = np.asarray(decoded.tokens)
        ends = tokens == self._vocabulary.end
        lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), tokens.shape[1] - 1)
        texts = [
            self._vocabulary.decode(row[:length].tolist())
            for row, length in zip(tokens, lengths, strict=True)
        ]
        rewards = self._reward(texts, np.repeat(batch[IMAGES], samples).tolist())
        rewards = rewards.reshape(-1, samples)
        advantages = (rewards - rewards.mean(axis=1, keepdims=True)) * samples / (samples - 1)
        seen = np.arange(tokens.shape[1]) <= lengths[:, None]
        weights = (advantages.reshape(-1, 1) * seen).astype(np.float32)
        return {VECTORS: vectors, TOKENS: tokens, WEIGHTS: weights}


def _local(value: jax.Array) -> jax.Array:
    """This process's copy of an array that every process has."""
    local: jax.Array = value.addressable_data(0)
    return local
