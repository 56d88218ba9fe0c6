"""Fine-tunes the last stage of a ResNet and the last layers of a BERT, on maps of `cache_maps`.

    python -m scripts.train_on_maps --start runs/start --maps runs/maps \
        --dataset PATH/TO/rsicd --dataset PATH/TO/ucm --out runs/bundled

The loss is CLIP's, with images that share a caption as positives, plus a cross-entropy over the
classes of the datasets, each named by a random synonym in a random template. The best epoch by the
mean of zero-shot top-1 and mR on val, with averaged weights, is written to OUT/best. An interrupted
run continues with the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rsicd_embed.datasets import classes
from rsicd_embed.datasets.base import Example
from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.clip.parts import ModelParts
from rsicd_embed.errors import TrainError
from rsicd_embed.evaluation import retrieval
from rsicd_embed.evaluation.dataset import class_labels
from rsicd_embed.evaluation.metrics import retrieval_metrics, topk_accuracy
from rsicd_embed.files import write_file
from rsicd_embed.train.input.caption_draws import Captions
from rsicd_embed.train.input.training_data import TrainingData, training_source
from scripts.cache_maps import MapCache
from scripts.two_towers import BATCH, Settings, Texts, TwoTowers

SCORES = ("top1", "mr")  # select the best epoch
_STATE = "state.pt"
TEMPLATES = (
    "{category}", "{category}", "an aerial photograph of {category}",
    "a satellite image of {category}", "aerial view of {category}", "{category} from above",
    "a picture showing {category}", "{category} seen from the air", "there is {category}",
)  # fmt: skip
# Classes whose images may show each other's subject; they are not negatives of each other.
RELATED = (
    ("parking", "parkinglot"), ("harbor", "port"), ("overpass", "viaduct", "freeway"),
    ("overpass", "bridge", "viaduct"), ("airplane", "airport"), ("runway", "airport"),
    ("agricultural", "farmland"), ("baseballdiamond", "baseballfield"),
    ("buildings", "commercial", "center", "industrial"), ("mobilehomepark", "denseresidential"),
    ("playfields", "playground", "stadium"), ("intersection", "commercial"),
    ("chaparral", "bareland"), ("pond", "park"),
)  # fmt: skip


class ClassNames:
    """Phrases that name the classes of a dataset, and classes that are no negatives."""

    def __init__(self, model: TwoTowers, examples: Sequence[Example]) -> None:
        """Finds the classes of the examples."""
        self.labels = sorted({str(e.label) for e in examples if e.label})
        own = [[t.format(category=p) for p in classes.phrases(c) for t in TEMPLATES]
               for c in self.labels]  # fmt: skip
        flat = [text for texts in own for text in texts]
        self.phrases = Texts(model, flat, model.parts.tokenizer(flat))
        self._ends = np.cumsum([0, *map(len, own)])
        place = {label: i for i, label in enumerate(self.labels)}
        self.of_image = torch.tensor([place.get(str(e.label), -1) for e in examples])
        self.related = torch.zeros(len(self.labels), len(self.labels), dtype=torch.bool)
        for group in RELATED:
            known = [place[name] for name in group if name in place]
            self.related[np.ix_(known, known)] = True
        self.related.fill_diagonal_(False)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """A phrase of each class, as rows of `phrases`."""
        return rng.integers(self._ends[:-1], self._ends[1:])

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of (b, classes) for the images that have a class."""
        rows = labels >= 0
        if not rows.any():
            return logits.sum() * 0
        own = labels[rows]
        return functional.cross_entropy(logits[rows].masked_fill(self.related[own], -1e4), own)


def contrastive(logits: Tensor, same: Tensor) -> Tensor:
    """CLIP's loss, with equal numbers in `same`, int (b,), as positives."""
    target = (same[:, None] == same[None, :]).float()
    target /= target.sum(1, keepdim=True)
    rows = (target * logits.log_softmax(1)).sum(1).mean()
    columns = (target * logits.log_softmax(0)).sum(0).mean()
    return -(rows + columns) / 2


class Validation:
    """Zero-shot top-1 and mR on the cached maps of val."""

    def __init__(self, model: TwoTowers, examples: Sequence[Example], maps: MapCache) -> None:
        """Embeds the captions and the prompts up to the first trained layer."""
        self._model, self._maps = model, maps
        self._pairs = retrieval.CaptionPairs.of(examples)
        labels = class_labels(examples, by_file_name=True)
        self._rows = [i for i, label in enumerate(labels) if label]
        names = sorted({str(labels[i]) for i in self._rows})
        self._right = np.array([names.index(str(labels[i])) for i in self._rows], np.int64)
        prompts = [classes.PROMPT.format(category=classes.readable(name)) for name in names]
        texts = [*self._pairs.distinct, *prompts]
        self._texts = Texts(model, texts, model.parts.tokenizer(texts))

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """The metrics of the current tensors."""
        model, maps = self._model, self._maps.val()
        with torch.autocast("cpu", torch.bfloat16):
            images = torch.cat([
                model.images(self._maps.unpack(maps[i : i + BATCH]))
                for i in range(0, len(maps), BATCH)
            ]).numpy()  # fmt: skip
            texts = torch.cat([
                model.texts(*self._texts[i : i + BATCH])
                for i in range(0, len(self._texts), BATCH)
            ]).numpy()  # fmt: skip
        captions, prompts = np.split(texts, [len(self._pairs.distinct)])
        ranks = retrieval.rank(images, captions, self._pairs)
        metrics = retrieval_metrics(ranks.i2t, ranks.t2i)
        if len(prompts) > 1:
            metrics |= topk_accuracy(images[self._rows] @ prompts.T, self._right)
        return metrics


def validation_score(metrics: Mapping[str, float]) -> float:
    """The mean of the metrics that select the best epoch."""
    return float(np.mean([metrics[name] for name in SCORES if name in metrics]))


class Run:
    """A run in a folder, which continues where it was interrupted."""

    def __init__(
        self,
        model: ModelParts,
        data: TrainingData,
        cache: MapCache,
        out: Path,
        settings: Settings,
    ) -> None:
        """Reads the captions, and the state of an earlier run.

        Raises:
            ModelError: the model has other towers.
            TrainError: there are fewer images than a batch, or the run has other settings.
        """
        self._settings, self._cache, self._out = settings, cache, out
        self._images = len(data.train)
        self._steps = self._images // settings.batch_size
        if not self._steps:
            raise TrainError(f"expected {settings.batch_size} images or more, found {self._images}")
        self._epochs = settings.warm_epochs + settings.epochs
        self._towers = TwoTowers(model, settings)
        self._captions = Captions.of(data.train, model.tokenizer, synonyms=True)
        self._same = torch.from_numpy(self._captions.same)
        self._texts = Texts(self._towers, self._captions.texts, self._captions.tokens)
        self._names = ClassNames(self._towers, data.train)
        self._validate = Validation(self._towers, data.val, cache)
        self._optimizer = torch.optim.AdamW(
            self._towers.groups, lr=0.0, betas=(0.9, 0.98), weight_decay=0.05
        )
        self._average, self._best, self._done = self._towers.values(), -1.0, 0
        self._of = {"of": MapCache.key(model, data), **dataclasses.asdict(settings)}
        out.mkdir(parents=True, exist_ok=True)
        if (out / _STATE).exists():
            self._resume(torch.load(out / _STATE))
        (out / "run.json").write_text(json.dumps(self._of, indent=2) + "\n")

    def _resume(self, state: dict[str, Any]) -> None:
        if state["of"] != self._of:
            raise TrainError(f"{self._out}: expected a run of {self._of}, found {state['of']}")
        self._done, self._best, self._average = state["epoch"], state["best"], state["average"]
        self._towers.load(state["trained"])
        self._optimizer.load_state_dict(state["optimizer"])

    def train(self) -> None:
        """Trains the remaining epochs, evaluates each on val, and keeps the best."""
        for epoch in range(self._done, self._epochs):
            started = time.perf_counter()
            loss = float(np.mean(list(self._losses(epoch))))
            with self._towers.replaced(self._average):
                metrics = self._validate()
                score = validation_score(metrics)
                if score > self._best:
                    self._best = score
                    self._keep()
            seconds = round(time.perf_counter() - started, 1)
            line = {"epoch": epoch + 1, "loss": loss, "seconds": seconds, **metrics}
            with (self._out / "metrics.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            state = {
                "of": self._of,
                "epoch": epoch + 1,
                "best": self._best,
                "average": self._average,
                "trained": self._towers.values(),
                "optimizer": self._optimizer.state_dict(),
            }
            write_file(self._out / _STATE, partial(torch.save, state))
            print(f"epoch {epoch + 1}/{self._epochs} {line}", flush=True)

    def _keep(self) -> None:
        best, aside = self._out / "best", self._out / "best.new"
        shutil.rmtree(aside, ignore_errors=True)
        self._towers.save(aside)
        shutil.rmtree(best, ignore_errors=True)
        aside.rename(best)

    def _losses(self, epoch: int) -> Iterator[float]:
        """Trains an epoch; yields the loss of each step."""
        settings, towers = self._settings, self._towers
        warm = epoch < settings.warm_epochs
        begin, length = (
            (0, settings.warm_epochs) if warm else (settings.warm_epochs, settings.epochs)
        )
        rng = np.random.default_rng([settings.seed, epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        towers.dropout = settings.dropout
        views = self._cache.views()
        first = np.random.default_rng(settings.seed).integers(len(views), size=self._images)
        order = rng.permutation(self._images)[: self._steps * settings.batch_size]
        for number, batch in enumerate(np.split(order, self._steps)):
            towers.set_rates(_rate(epoch - begin + number / self._steps, length), heads_only=warm)
            rows = np.sort(batch).astype(np.int32)
            which = (first[rows] + epoch) % len(views)
            maps = np.stack([views[v][row] for v, row in zip(which, rows, strict=True)])
            loss = self._loss(maps, rows, rng)
            self._optimizer.zero_grad()
            loss.backward()
            params = [tensor for group in towers.groups for tensor in group["params"]]
            torch.nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], 1.0)
            self._optimizer.step()
            step = epoch * self._steps + number
            for name, value in self._average.items():
                decay = min(settings.ema, (1 + step) / (10 + step))
                value.lerp_(towers.tensors[name].detach(), 1 - decay)
            yield loss.item()

    def _loss(self, maps: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        towers, names = self._towers, self._names
        own = self._captions.own.draw(rows, rng.random(len(rows)))
        with torch.autocast("cpu", torch.bfloat16):
            images = towers.images(self._cache.unpack(maps))
            described = towers.texts(*self._texts[own])
            named = towers.texts(*names.phrases[names.draw(rng)])
        scaled = towers.tensors["logit_scale"].exp().clamp(max=100) * images
        of_classes = names.loss(scaled @ named.T, names.of_image[rows])
        return contrastive(scaled @ described.T, self._same[own]) + (
            self._settings.class_weight * of_classes
        )


def _rate(epochs: float, of: int) -> float:
    """Fraction of the peak learning rate: a short warm-up, then half a cosine."""
    done = epochs / of
    return min(1.0, 0.02 + 20 * done) * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * done)))


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", type=Path, required=True, help="as for cache_maps")
    parser.add_argument("--maps", type=Path, required=True, help="the folder of cache_maps")
    parser.add_argument("--dataset", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    for field in dataclasses.fields(Settings):
        name, default = field.name.replace("_", "-"), getattr(Settings, field.name)
        parser.add_argument(f"--{name}", type=type(default), default=default)
    options = vars(parser.parse_args())
    model = parts.read(options["start"])
    data = training_source([(path, 1.0) for path in options["dataset"]], augmented_captions=True)
    cache = MapCache.of(options["maps"], MapCache.key(model, data))
    settings = Settings(**{f.name: options[f.name] for f in dataclasses.fields(Settings)})
    Run(model, data, cache, options["out"], settings).train()


if __name__ == "__main__":
    main()
