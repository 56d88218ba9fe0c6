"""The distillation objective, on matrices with known results."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rsicd_embed.train.config import TeacherConfig
from rsicd_embed.train.objective import (
    TEACHER_IMAGES,
    TEACHER_TEXTS,
    Embeddings,
    Objective,
    affinity_divergence,
    cosine_distance,
    distilled,
)


def units(seed: int, *shape: int) -> np.ndarray:
    result = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return result / np.linalg.norm(result, axis=-1, keepdims=True)


def test_divergence_matches_scipy() -> None:
    from scipy.special import rel_entr, softmax

    own, target = (np.random.default_rng(i).standard_normal((5, 5)) * 3 for i in range(2))
    rows = rel_entr(softmax(target, 1), softmax(own, 1)).sum(1).mean()
    columns = rel_entr(softmax(target, 0), softmax(own, 0)).sum(0).mean()
    result = affinity_divergence(jnp.asarray(own), jnp.asarray(target))
    assert float(result) == pytest.approx((rows + columns) / 2, rel=1e-5)


def test_a_model_learns_nothing_from_itself() -> None:
    images, texts = units(0, 6, 8), units(1, 6, 8)
    batch = {TEACHER_IMAGES: jnp.asarray(images), TEACHER_TEXTS: jnp.asarray(texts)}
    objective = distilled(Objective(lambda e, b: (jnp.zeros(()), {})), TeacherConfig(), 20.0, True)
    same = Embeddings(batch[TEACHER_IMAGES], batch[TEACHER_TEXTS], jnp.float32(20.0), {})
    loss, metrics = objective.loss(same, batch)
    assert abs(float(loss)) < 1e-5
    assert set(metrics) == {"contrastive", "affinity", "features"}
    other = Embeddings(batch[TEACHER_TEXTS], batch[TEACHER_IMAGES], jnp.float32(20.0), {})
    assert float(objective.loss(other, batch)[0]) > 1


def test_share_weights_captions_and_teacher() -> None:
    batch = {
        TEACHER_IMAGES: jnp.asarray(units(0, 4, 8)),
        TEACHER_TEXTS: jnp.asarray(units(1, 4, 8)),
    }
    mine = Embeddings(jnp.asarray(units(2, 4, 3)), jnp.asarray(units(3, 4, 3)), jnp.float32(5), {})
    own = Objective(lambda e, b: (jnp.float32(7.0), {}))

    def loss(share: float) -> float:
        config = TeacherConfig(share=share)
        return float(distilled(own, config, 10.0, False).loss(mine, batch)[0])

    assert loss(0.0) == 7.0
    assert loss(0.25) == pytest.approx(0.75 * 7.0 + 0.25 * loss(1.0), rel=1e-6)


def test_distance_falls_along_its_gradient() -> None:
    student, teacher = jnp.asarray(units(0, 3, 4)), jnp.asarray(units(1, 3, 4))
    gradient = jax.grad(cosine_distance)(student, teacher)
    closer = student - 0.1 * gradient
    closer /= jnp.linalg.norm(closer, axis=1, keepdims=True)
    assert float(cosine_distance(closer, teacher)) < float(cosine_distance(student, teacher))
