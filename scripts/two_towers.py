"""A model with a ResNet and a BERT of which the last parts are trained, on cached inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.config import BertConfig
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.errors import ModelError
from scripts import torch_towers
from scripts.cache_maps import LAST

HEADS = ("visual_projection.weight", "text_projection.weight")
BATCH = 256  # without gradients
_TEXT_TOKENS = 32  # longer captions are cut in training


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        epochs: passes over the images, each with another view.
        warm_epochs: earlier epochs that train the projections only.
        batch_size: images per step.
        seed: random seed.
        image_lr: peak learning rate of the stage.
        text_lr: peak learning rate of the text layers.
        head_lr: peak learning rate of the projections.
        text_layers: number of the BERT's last layers that are trained.
        class_weight: weight of the cross-entropy over the classes.
        ema: decay of the averaged weights.
        dropout: probability, before the image projection and in the trained text layers.
    """

    epochs: int = 12
    warm_epochs: int = 3
    batch_size: int = 512
    seed: int = 0
    image_lr: float = 2e-4
    text_lr: float = 5e-5
    head_lr: float = 1e-3
    text_layers: int = 2
    class_weight: float = 0.5
    ema: float = 0.98
    dropout: float = 0.1


class Texts:
    """Texts, embedded up to the first trained layer of the text tower."""

    def __init__(self, model: TwoTowers, texts: Sequence[str], tokens: np.ndarray) -> None:
        """Embeds tokens int32 (n, t)."""
        self.texts = tuple(texts)
        ids = torch.from_numpy(tokens[:, :_TEXT_TOKENS].astype(np.int64))
        self._seen = ids != model.bert.pad_token_id
        lengths = self._seen.sum(1)
        self._states = torch.zeros(*ids.shape, model.bert.width, dtype=torch.bfloat16)
        for rows in lengths.argsort().split(BATCH):
            longest = int(lengths[rows].max())
            self._states[rows, :longest] = model.text_states(ids[rows, :longest])

    def __getitem__(self, rows: np.ndarray | slice, /) -> tuple[Tensor, Tensor]:
        """States (n, t, w), and which of their tokens are not padding, cut to the longest text."""
        seen = self._seen[rows]
        longest = int(seen.sum(1).max())
        return self._states[rows][:, :longest].float(), seen[:, :longest]

    def __len__(self) -> int:
        return len(self.texts)


class TwoTowers:
    """The tensors of a model, some of which are trained."""

    def __init__(self, model: ModelParts, settings: Settings) -> None:
        """Takes a ResNet and a BERT.

        Raises:
            ModelError: the model has other towers.
        """
        resnet, bert = model.config.vision, model.config.text
        if not isinstance(resnet, ResNetConfig) or not isinstance(bert, BertConfig):
            raise ModelError("expected a model with a ResNet and a BERT; see pretrained_towers.py")
        self.resnet, self.bert, self.parts = resnet, bert, model
        self.tensors = torch_towers.by_name(model.tensors)
        self._frozen_layers = range(bert.layers - settings.text_layers)
        self._layers = range(bert.layers - settings.text_layers, bert.layers)
        layers = tuple(f"text_model.encoder.layer.{layer}." for layer in self._layers)
        names = {
            "image_lr": torch_towers.stage_names(resnet, LAST, self.tensors),
            "text_lr": [name for name in self.tensors if name.startswith(layers)],
            "head_lr": [*HEADS, "logit_scale"],
        }
        rates = dataclasses.asdict(settings)
        self.groups: list[dict[str, Any]] = [
            {"params": [self.tensors[n].requires_grad_() for n in own], "peak": rates[group]}
            for group, own in names.items()
        ]
        self.trained = [name for own in names.values() for name in own]
        self.dropout = 0.0

    def images(self, maps: Tensor) -> Tensor:
        """Maps before the last stage → unit vectors, float32 (b, d)."""
        x = torch_towers.resnet_stage(self.tensors, self.resnet, LAST, maps)
        x = functional.dropout(x.float().mean((2, 3)), self.dropout)
        return functional.normalize(functional.linear(x, self.tensors[HEADS[0]]).float(), dim=-1)

    def texts(self, states: Tensor, seen: Tensor) -> Tensor:
        """`Texts` → unit vectors, float32 (b, d)."""
        x = torch_towers.bert_layers(
            self.tensors, self.bert, self._layers, states, seen, dropout=self.dropout
        )
        x = torch_towers.pooled(x, seen)
        return functional.normalize(functional.linear(x, self.tensors[HEADS[1]]).float(), dim=-1)

    def set_rates(self, factor: float, *, heads_only: bool) -> None:
        """Sets the learning rates to a fraction of their peaks; may freeze the other parts."""
        for group in self.groups:
            frozen = heads_only and group is not self.groups[-1]
            group["lr"] = 0.0 if frozen else group["peak"] * factor
            for tensor in group["params"]:
                tensor.requires_grad_(not frozen)

    def values(self) -> dict[str, Tensor]:
        """A copy of the trained tensors."""
        return {name: self.tensors[name].detach().clone() for name in self.trained}

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Replaces the values of the trained tensors."""
        for name, value in values.items():
            self.tensors[name].data.copy_(value)

    @contextmanager
    def replaced(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Uses other values of the trained tensors within the block, without dropout."""
        current, dropout, self.dropout = self.values(), self.dropout, 0.0
        self.load(values)
        yield
        self.load(current)
        self.dropout = dropout

    @torch.no_grad()
    def text_states(self, tokens: Tensor) -> Tensor:
        """int64 (b, t) → the input of the first trained layer."""
        seen = tokens != self.bert.pad_token_id
        with torch.autocast("cpu", torch.bfloat16):
            x = torch_towers.bert_embeddings(self.tensors, self.bert, tokens)
            x = torch_towers.bert_layers(self.tensors, self.bert, self._frozen_layers, x, seen)
        return x.bfloat16()

    def save(self, directory: Path) -> None:
        """Writes a model directory."""
        trained = {name: value.numpy().copy(order="C") for name, value in self.values().items()}
        tensors = {**self.parts.tensors, **trained}
        params = weights.params_from_hf(self.parts.config, tensors)
        tokens, pixels = self.parts.tokenizer.stored(), self.parts.preprocessor
        export_model.save(directory, self.parts.config, params, tokens, pixels)
