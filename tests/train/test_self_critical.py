"""Self-critical training of a tiny captioner: sampled captions, advantages, and learning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsicd_embed.captioning import captioner_files
from rsicd_embed.captioning.caption_config import CaptionerConfig, DecoderConfig
from rsicd_embed.captioning.caption_model import CaptionModel
from rsicd_embed.captioning.vocabulary import Words
from rsicd_embed.errors import SettingError, TrainError
from rsicd_embed.evaluation.caption_metrics import cider_reward, score_captions
from rsicd_embed.evaluation.caption_protocol import caption_point
from rsicd_embed.train.captioner.caption_loop import train_captioner
from rsicd_embed.train.captioner.caption_settings import CaptionTrainConfig, DecoderSettings
from rsicd_embed.train.captioner.caption_step import IMAGES, TOKENS, VECTORS, WEIGHTS
from rsicd_embed.train.captioner.self_critic import SelfCritic
from rsicd_embed.train.config import OptimizerConfig, parse
from rsicd_embed.train.input.training_data import TrainingData
from rsicd_embed.train.state import TrainState
from tests.train.test_caption_training import CONFIG, MeanColours, data  # noqa: F401

CRITICAL = CaptionTrainConfig(
    DecoderSettings(max_words=4),
    OptimizerConfig(learning_rate=3e-3, weight_decay=0.0),
    init="bundled",
    objective="cider_d",
    samples=4,
    noise=0.0,
    dropout=0.0,
    ema=0.0,
)
REFERENCES = [["a port with boats", "a port"], ["a desert"], ["a river"]]


def state_of(shape: CaptionerConfig) -> TrainState:
    from flax import nnx

    params = nnx.state(CaptionModel(shape, rngs=nnx.Rngs(0)))
    arrays = {n: jnp.asarray(v) for n, v in captioner_files.named_arrays(params).items()}
    return TrainState(arrays, {}, {}, (), jnp.zeros((), jnp.int32))


def test_sampled_captions_are_weighted_by_their_advantage() -> None:
    words = Words.of((c for own in REFERENCES for c in own), 1)
    shape = CaptionerConfig(DecoderConfig(words.size, 6, 8, 1, 2, 16), 3, 1, 8)
    seen: list[tuple[str, int]] = []
    cider = cider_reward(REFERENCES)

    def reward(captions: Any, images: Any) -> np.ndarray:
        seen.extend(zip(captions, images, strict=True))
        return cider(captions, images)

    critic = SelfCritic(shape, CRITICAL, words, reward)
    vectors = np.eye(3, dtype=np.float32)[[2, 0]]
    images = np.array([2, 0])
    batch = critic(state_of(shape), {VECTORS: vectors, IMAGES: images})
    assert [image for _, image in seen] == [2] * 4 + [0] * 4
    assert len({caption for caption, _ in seen}) > 1
    np.testing.assert_array_equal(batch[VECTORS], np.repeat(vectors, 4, axis=0))
    for row, (caption, _) in enumerate(seen):
        length = int((batch[WEIGHTS][row] != 0).sum()) or int((batch[TOKENS][row] != 0).sum()) + 1
        assert words.decode(batch[TOKENS][row][: length - 1].tolist()) == caption
    rewards = cider(*zip(*seen, strict=True)).reshape(2, 4)
    others = (rewards.sum(axis=1, keepdims=True) - rewards) / 3
    expected = (rewards - others).ravel()
    np.testing.assert_allclose(batch[WEIGHTS][:, 0], expected, atol=1e-5)
    assert abs(batch[WEIGHTS][:4, 0].sum()) < 1e-4


def test_the_reward_is_the_metric() -> None:
    captions = ["a port with boats", "desert", "the long river"]
    metric = score_captions(captions, REFERENCES).cider_d
    reward = cider_reward(REFERENCES)
    np.testing.assert_allclose(reward(captions, [0, 1, 2]), metric, rtol=1e-12)
    np.testing.assert_allclose(reward(captions[:1] * 2, [1, 0]), [0.0, metric[0]], rtol=1e-12)


@pytest.mark.slow
def test_rewards_grow(data: TrainingData, tmp_path: Path) -> None:  # noqa: F811
    embedder: Any = MeanColours()
    short = parse.replaced(CONFIG, {"epochs": 6, "eval_every": 6})
    before = train_captioner(short, data, tmp_path / "first", embedder, caption_point, cider_reward)
    critical = parse.replaced(
        short,
        {
            "init": str(tmp_path / "first"),
            "objective": "cider_d",
            "epochs": 20,
            "eval_every": 20,
            "optimizer.learning_rate": 3e-3,
        },
    )
    after = train_captioner(
        critical, data, tmp_path / "second", embedder, caption_point, cider_reward
    )
    assert after["cider_d"] > before["cider_d"]


def test_resuming_notices_another_initial_captioner(
    data: TrainingData,  # noqa: F811
    tmp_path: Path,
) -> None:
    embedder: Any = MeanColours()

    def train(name: str, **changes: Any) -> None:
        config = parse.replaced(CONFIG, {"epochs": 1, "eval_every": 1, **changes})
        train_captioner(config, data, tmp_path / name, embedder, caption_point, cider_reward)

    train("first")
    train("second", init=str(tmp_path / "first"))
    train("second", init=str(tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    train("first", seed=1)
    with pytest.raises(TrainError, match="second contains a run with other initial captioner"):
        train("second", init=str(tmp_path / "first"))


def test_settings(data: TrainingData, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(SettingError, match="likelihood without init"):
        CaptionTrainConfig(objective="cider_d")
    with pytest.raises(SettingError, match=r"decoder\.init to be unset with init"):
        CaptionTrainConfig(DecoderSettings(init="gpt2"), init="bundled")
    config = parse.replaced(CONFIG, {"init": "bundled", "views": 1})
    with pytest.raises(TrainError, match="expected a captioner of vectors of dimension 3, found"):
        train_captioner(config, data, tmp_path / "run", MeanColours(), caption_point, cider_reward)  # type: ignore[arg-type]


def test_keys_of_a_step_differ() -> None:
    from rsicd_embed.train.captioner.caption_step import step_keys

    keys = [jax.random.key_data(step_keys(0, jnp.int32(step))) for step in (0, 1)]
    assert len({bytes(np.asarray(key)) for pair in keys for key in pair}) == 6
