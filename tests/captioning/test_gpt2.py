"""GPT-2 directories as decoders: equal to transformers', strictly loaded, trained and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from rsicd_embed._lazy_torchvision import mend_torchvision
from rsicd_embed.captioning.caption_model import Decoder
from rsicd_embed.captioning.captioner_files import params_of
from rsicd_embed.captioning.gpt2 import read_gpt2
from rsicd_embed.captioning.loading_captioner import load_captioner
from rsicd_embed.datasets import captioned
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.errors import ModelError, TrainError, WeightsError
from rsicd_embed.evaluation.caption_metrics import cider_reward
from rsicd_embed.evaluation.caption_protocol import caption_point
from rsicd_embed.train.captioner.caption_loop import train_captioner
from rsicd_embed.train.config import parse
from rsicd_embed.train.input.training_data import TrainingData
from tests.train.test_caption_training import CONFIG, MeanColours

WORDS = ["<|endoftext|>", "a", "there", "is", "number", "desert", "forest", "sea", "port", "."]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A directory with a tiny random GPT-2, and the model of transformers."""
    pytest.importorskip("torch", reason="needs the augment extra")
    mend_torchvision()
    transformers = pytest.importorskip("transformers", reason="needs the augment extra")
    torch = pytest.importorskip("torch", reason="needs the augment extra")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=12, n_embd=16, n_layer=2, n_head=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    folder = tmp_path_factory.mktemp("gpt2")
    model.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="."))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder, model


def test_logits_equal_those_of_transformers(original: tuple[Path, Any]) -> None:
    import torch

    folder, model = original
    tokens = np.random.default_rng(0).integers(0, len(WORDS), (3, 9))
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)).logits.numpy()
    gpt2 = read_gpt2(folder)
    graph = nnx.graphdef(Decoder(gpt2.config, rngs=nnx.Rngs(0)))
    decoder = nnx.merge(graph, params_of(gpt2.arrays))
    features, _ = decoder(decoder.token_embed(jnp.asarray(tokens)))
    np.testing.assert_allclose(np.asarray(decoder.logits(features)), expected, atol=2e-5)


def copied(folder: Path, out: Path) -> Path:
    for path in folder.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return out


def test_weights_and_settings_are_checked(original: tuple[Path, Any], tmp_path: Path) -> None:
    folder = copied(original[0], tmp_path)
    tensors = {k: np.array(v) for k, v in weight_files.load(folder).items()}
    stored = (folder / "model.safetensors").read_bytes()
    tensors["transformer.extra"] = np.zeros(1, np.float32)
    del tensors["transformer.ln_f.bias"]
    tensors["transformer.wpe.weight"] = np.zeros((3, 16), np.float32)
    tensors["lm_head.weight"] = np.zeros((len(WORDS), 16), np.float32)
    weight_files.save_safetensors(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError) as raised:
        read_gpt2(folder)
    for problem in (
        "missing ln_f.bias", "unused extra", "wpe.weight: expected shape (12, 16), found (3, 16)",
        "lm_head.weight: expected the token embeddings",
    ):  # fmt: skip
        assert problem in str(raised.value)
    (folder / "model.safetensors").write_bytes(stored)

    content = json.loads((folder / "config.json").read_text())
    for changes, error, message in (
        ({"model_type": "opt"}, ModelError, "expected a GPT-2 as decoder, found .* 'opt'"),
        ({"activation_function": "relu"}, ModelError, "activation_function 'gelu_new', found"),
        ({"n_head": None}, ModelError, "expected n_head as integers"),
        ({"vocab_size": 99}, WeightsError, "a tokenizer of 99 tokens, .* found 10"),
    ):
        (folder / "config.json").write_text(json.dumps(content | changes))
        with pytest.raises(error, match=message):
            read_gpt2(folder)
    (folder / "config.json").write_text(json.dumps(content))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"expected tokenizer\.json in"):
        read_gpt2(folder)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_a_captioner_is_trained_around_it(
    original: tuple[Path, Any], captioned_folder: Path, tmp_path: Path, freeze: bool
) -> None:
    source = captioned.load(captioned_folder)
    assert source is not None
    train = source.split("train")
    data = TrainingData(train, (1.0,) * len(train), source.split("val"), ("toy",))
    config = parse.replaced(
        CONFIG,
        {"decoder.init": str(original[0]), "decoder.freeze": freeze, "epochs": 1, "views": 1},
    )
    embedder: Any = MeanColours()
    train_captioner(config, data, tmp_path / "run", embedder, caption_point, cider_reward)
    captioner = load_captioner(tmp_path / "run")
    assert captioner.config.decoder == read_gpt2(original[0]).config
    assert captioner.caption_vectors(np.eye(3, dtype=np.float32)).texts
    name = "decoder.token_embed.weight"
    trained = weight_files.load(tmp_path / "run" / "best")[name]
    before = weight_files.load(original[0])["transformer.wte.weight"]
    assert np.array_equal(trained, before) == freeze
    too_long = parse.replaced(config, {"decoder.max_words": 12})
    with pytest.raises(TrainError, match="captions of at most 11 tokens, the context of"):
        train_captioner(too_long, data, tmp_path / "long", embedder, caption_point, cider_reward)
