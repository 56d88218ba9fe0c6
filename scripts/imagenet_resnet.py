"""Creates an initial CLIP for training: an ImageNet ResNet and a random text tower.

    python scripts/imagenet_resnet.py --weights resnet18.pkl --captions PATH/TO/rsicd --out start

The weights are a state dict of a torchvision ResNet, read by a restricted unpickler that cannot
execute code. The vocabulary is learnt from the captions of the train splits.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import imagenet_weights as imagenet
from flax import nnx

from rsicd_embed.datasets import captioned
from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import tensors, torch_pickle, weights
from rsicd_embed.embedder.clip.config import ClipConfig, TowerConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.embedder.training_words import TrainingWords
from rsicd_embed.errors import RsicdEmbedError
from rsicd_embed.train.initialization import learn_vocabulary

TEXT = TowerConfig(width=256, layers=4, heads=4, mlp_width=1024)
VOCAB_SIZE = 4096
CONTEXT_LENGTH = 32


def make(
    state_dict: Path,
    out: Path,
    datasets: Sequence[Path],
    *,
    image_size: int,
    dim: int,
    text_layers: int,
    seed: int,
) -> ClipConfig:
    """Writes the model directory in float32 and returns the model's shape."""
    read = torch_pickle.load if zipfile.is_zipfile(state_dict) else torch_pickle.load_plain
    resnet, image = imagenet.resnet(read(state_dict))
    config = ClipConfig(
        vision=resnet,
        text=replace(TEXT, layers=text_layers),
        dim=dim,
        image_size=image_size,
        patch_size=0,
        vocab_size=VOCAB_SIZE,
        context_length=CONTEXT_LENGTH,
        eos_token_id=VOCAB_SIZE - 1,
    )
    random = weights.params_to_hf(nnx.state(Clip(config, rngs=nnx.Rngs(seed))))
    params = weights.params_from_hf(config, tensors.checked(config, random | image))
    captions = itertools.chain.from_iterable(
        example.captions for path in datasets for example in captioned.load(path).split("train")
    )
    pixels = Preprocessor(
        image_size, (image_size, image_size), mean=imagenet.MEAN, std=imagenet.STD
    )
    export_model.save(out, config, params, learn_vocabulary(captions, VOCAB_SIZE), pixels)
    TrainingWords({}).write(out)  # the text tower is untrained
    return config


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--weights", type=Path, required=True, help="state dict of a torchvision ResNet"
    )
    parser.add_argument("--captions", type=Path, required=True, nargs="+", metavar="DATASET")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--image-size", type=int, default=224, help="a multiple of 32")
    parser.add_argument("--dim", type=int, default=256, help="length of the joint embedding")
    parser.add_argument("--text-layers", type=int, default=TEXT.layers)
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed of the text tower and projections"
    )
    options = parser.parse_args()
    try:
        config = make(
            options.weights,
            options.out,
            options.captions,
            image_size=options.image_size,
            dim=options.dim,
            text_layers=options.text_layers,
            seed=options.seed,
        )
    except RsicdEmbedError as error:
        sys.exit(f"error: {error}")
    parameters = sum(math.prod(shape) for shape in tensors.shapes(config).values())
    print(
        f"{options.out}: {parameters / 1e6:.1f} million parameters, untrained except for the ResNet"
    )


if __name__ == "__main__":
    main()
