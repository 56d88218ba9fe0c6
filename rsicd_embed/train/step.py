"""The compiled training step: views, embeddings, loss over the global batch, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from rsicd_embed.embedder.clip.config import ClipConfig
from rsicd_embed.embedder.clip.model import Clip, normalise
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import TrainError
from rsicd_embed.train.config import TrainConfig
from rsicd_embed.train.distributed import DeviceLayout, place
from rsicd_embed.train.input.augment import VIEWS, random_patches, random_view, view_keys
from rsicd_embed.train.objective import Arrays, Embeddings, Metrics, Objective
from rsicd_embed.train.optimizers import Named, optimizer, schedule, unnamed
from rsicd_embed.train.recompute import BatchParts, recomputed, value_and_grad
from rsicd_embed.train.state import TrainState, split_own

MAX_LOGIT_SCALE = math.log(100.0)  # as in CLIP, to keep training stable

Rows = Mapping[str, jax.Array]  # inputs of the towers
Step = Callable[[TrainState, Mapping[str, np.ndarray]], tuple[TrainState, Metrics]]


@dataclass(frozen=True)
class Recipe:
    """Everything that a compiled step depends on.

    Attributes:
        model: shape of the towers.
        config: settings of the run.
        pixels: how pixels are normalised.
        steps: number of steps of the whole run, for the learning-rate schedule.
        objective: the training objective.
        layout: how the step is spread over devices.
        keep_patches: fraction of the patches kept in this step; ignored for a ResNet.
    """

    model: ClipConfig
    config: TrainConfig
    pixels: Preprocessor
    steps: int
    objective: Objective
    layout: DeviceLayout
    keep_patches: float = 1.0

    def __post_init__(self) -> None:
        devices, size = self.layout.devices, self.config.batch_size
        if size % devices:
            raise TrainError(
                f"expected a batch divisible by the {devices} devices, found {size}; "
                "give another --batch-size"
            )
        if size // devices % self._chunk:
            raise TrainError(
                f"expected step.chunk to divide the {size // devices} images per device, "
                f"found {self._chunk}"
            )

    @property
    def _chunk(self) -> int:
        """Number of images that a device embeds at a time."""
        own = self.config.batch_size // self.layout.devices
        return min(self.config.step.chunk or own, own)

    @property
    def parts(self) -> int:
        """Number of parts that a batch is embedded in."""
        return self.config.batch_size // self.layout.devices // self._chunk

    @property
    def kept_patches(self) -> int | None:
        """Number of patches that an image keeps; None for all."""
        count = max(1, round(self.keep_patches * self.model.patches))
        return count if count < self.model.patches else None


def make_step(recipe: Recipe) -> Step:
    """Returns the step as a function of the state and this process's rows (`own_rows`) of a batch.

    It compiles on its first call. The memory of the state passed in is reused.
    """
    run = jitted_step(recipe)

    def step(state: TrainState, arrays: Mapping[str, np.ndarray]) -> tuple[TrainState, Metrics]:
        new: tuple[TrainState, Metrics] = run(state, place(recipe.layout, arrays))
        return new

    return step


def jitted_step(recipe: Recipe) -> Any:
    """The compiled function: maps a state and a global batch to the next state and metrics.

    The metrics are float32 scalars: loss, grad_norm (before clipping), logit_scale (its exp), the
    learning_rate of this step, and those of the objective. `lower` accepts shapes.
    """
    config = recipe.config
    update = optimizer(config.optimizer, recipe.steps)
    rate = schedule(config.optimizer, recipe.steps)

    def run(state: TrainState, batch: Arrays) -> tuple[TrainState, Metrics]:
        (loss, metrics), slope = gradients(recipe, state, batch)
        updates, memory = update.update(slope, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        if "logit_scale" in trained and "logit_bias" not in state.frozen | trained:
            trained["logit_scale"] = jnp.clip(trained["logit_scale"], 0.0, MAX_LOGIT_SCALE)
        new = TrainState(
            trained,
            state.frozen,
            moved_average(state.average, trained, config.step.ema, state.step),
            memory,
            state.step + 1,
        )
        return recipe.layout.pinned(new), {
            "loss": loss,
            "grad_norm": optax.tree.norm(slope),
            "logit_scale": jnp.exp((state.frozen | state.trained)["logit_scale"]),
            "learning_rate": jnp.asarray(rate(state.step), jnp.float32),
            **metrics,
        }

    return jax.jit(run, donate_argnums=0, out_shardings=(None, recipe.layout.placement.everywhere))


def moved_average(average: Named, trained: Named, decay: float, step: jax.Array) -> Named:
    """Updates the exponential moving average; an empty one stays empty.

    The decay grows to `decay` as (1 + n) / (10 + n), so that the initial parameters do not dominate
    the average of a short run.
    """
    if not average:
        return {}
    decay_now = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return {n: decay_now * average[n] + (1 - decay_now) * trained[n] for n in average}


def gradients(
    recipe: Recipe, state: TrainState, batch: Arrays
) -> tuple[tuple[Any, Metrics], Named]:
    """Returns the loss and metrics of a global batch, and the gradient of the loss; traced."""

    def embedded(trained: Named, rows: Rows) -> tuple[jax.Array, jax.Array]:
        return embed(recipe, state, trained, rows)

    def loss(trained: Named, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, Metrics]:
        model, own = split_own(state.frozen | trained)
        scale = jnp.exp(model["logit_scale"])
        if "bias" in own and "logit_bias" in model:  # a SigLIP has its own
            own = own | {"bias": model["logit_bias"]}
        return recipe.objective.loss(Embeddings(*pair, scale, own), batch)

    rows = rows_of(recipe, state, batch)
    if recipe.parts > 1:
        parts = BatchParts(recipe.parts, recipe.layout)
        return value_and_grad(embedded, loss, state.trained, rows, parts)
    whole = jax.value_and_grad(lambda p: loss(p, embedded(p, rows)), has_aux=True)
    return whole(state.trained)


def embed(
    recipe: Recipe, state: TrainState, trained: Named, rows: Rows
) -> tuple[jax.Array, jax.Array]:
    """Returns unit embeddings of images and texts, float32 (b, d), under parameters `trained`."""
    config = recipe.config.step
    dtype = jnp.dtype(config.precision)
    graph = nnx.graphdef(nnx.eval_shape(lambda: Clip(recipe.model, dtype=dtype, rngs=nnx.Rngs(0))))
    model, _ = split_own(state.frozen | trained)
    clip = recomputed(nnx.merge(graph, unnamed(model)), config.remat, recipe.layout)
    images = clip.encode_image(_views(recipe, rows), rows.get("patches"))
    return images, clip.encode_text(rows["tokens"])


def rows_of(recipe: Recipe, state: TrainState, batch: Arrays) -> dict[str, jax.Array]:
    """Inputs of the towers, with random keys per row, so that results do not depend on chunking."""
    count = len(batch["pixels"])
    root = jax.random.fold_in(jax.random.key(recipe.config.seed), state.step)
    view_key, patch_key = jax.random.split(root)
    rows = {"pixels": batch["pixels"], "tokens": batch["tokens"]}
    if batch["pixels"].shape[1] > recipe.model.image_size:
        rows["view"] = (
            view_keys(recipe.config.seed, batch[VIEWS])
            if VIEWS in batch
            else jax.random.split(view_key, count)
        )
    kept_patches = recipe.kept_patches
    if kept_patches is not None:
        rows["patches"] = random_patches(patch_key, count, recipe.model.patches, kept_patches)
    return rows


def _views(recipe: Recipe, rows: Rows) -> jax.Array:
    """Normalised pixels; random views if the pixels are larger than the model's images."""
    pixels, size = rows["pixels"], recipe.model.image_size
    if pixels.shape[1] < size:
        raise TrainError(
            f"expected images of at least {size} pixels a side, found {pixels.shape[1]}"
        )
    if "view" in rows:

        def view(key: jax.Array, image: jax.Array) -> jax.Array:
            return random_view(key, image[None], size, recipe.config.augment)[0]

        pixels = jax.vmap(view)(rows["view"], pixels)
    return normalise(pixels, recipe.pixels)
