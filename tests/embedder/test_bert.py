"""CLIP with a BERT text tower: parity with transformers on every engine, and on disk."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from rsicd_embed.embedder import export_model
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import tensors as clip_tensors
from rsicd_embed.embedder.clip import weights
from rsicd_embed.embedder.clip.backends.on_jax import JaxTowers
from rsicd_embed.embedder.clip.backends.on_numpy import NumpyTowers
from rsicd_embed.embedder.clip.backends.on_openvino import OpenvinoTowers
from rsicd_embed.embedder.clip.config import BertConfig, ClipConfig
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.preprocess import Preprocessor
from rsicd_embed.errors import WeightsError
from rsicd_embed.testing.embedders import EmbedderContract
from rsicd_embed.train.optimizers import frozen, named
from tests.embedder.onnx_towers import OnnxTowers
from tests.reference import BertModel, BertModelConfig

WORDS = (
    "a an the river port boats with many aerial photograph of green trees ##s ##land farm "
    "desert forest sea"
)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split()]
CLS, SEP = 2, 3
TEXT = BertConfig(width=24, layers=3, heads=4, mlp_width=48)
HOW = Preprocessor(32, (32, 32))
CONFIG = ClipConfig(
    ResNetConfig((8, 8, 16, 24), (1, 1, 1, 1), stem_width=8),
    TEXT,
    dim=16,
    image_size=32,
    patch_size=0,
    vocab_size=len(VOCABULARY),
    context_length=12,
    eos_token_id=SEP,
)


def random_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {
        name: draw.normal(0, max(1, np.prod(shape[1:])) ** -0.5, shape).astype(np.float32)
        for name, shape in clip_tensors.shapes(CONFIG).items()
    }


def wordpiece() -> Tokenizer:
    """MiniLM's kind of tokenizer, with padding to a fixed length as its file has it."""
    ids = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.enable_padding(length=10, pad_id=0, pad_token="[PAD]")
    return tokenizer


def reference(tensors: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """transformers' BertModel, the mean over tokens, and the projection."""
    model = BertModel(
        BertModelConfig(
            vocab_size=CONFIG.vocab_size,
            hidden_size=TEXT.width,
            num_hidden_layers=TEXT.layers,
            num_attention_heads=TEXT.heads,
            intermediate_size=TEXT.mlp_width,
            max_position_embeddings=CONFIG.context_length,
        ),
        add_pooling_layer=False,
    ).eval()
    state = {
        name.removeprefix("text_model."): torch.tensor(tensor)
        for name, tensor in tensors.items()
        if name.startswith("text_model.")
    }
    state["embeddings.token_type_embeddings.weight"] = torch.zeros(2, TEXT.width)
    model.load_state_dict(state)
    mask = torch.tensor(tokens != TEXT.pad_token_id)
    with torch.no_grad():
        hidden = model(torch.tensor(tokens), attention_mask=mask).last_hidden_state
    features = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    projected = features.numpy() @ tensors["text_projection.weight"].T
    unit: np.ndarray = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return unit


def test_texts_match_transformers_on_every_engine() -> None:
    tensors = random_tensors()
    tokens = np.zeros((4, 9), np.int32)
    for row, length in zip(tokens, (2, 5, 8, 9), strict=True):
        row[:length] = [CLS, *range(4, 4 + length - 2), SEP]
    expected = reference(tensors, tokens)
    params = weights.params_from_hf(CONFIG, tensors)
    for towers in (
        JaxTowers(CONFIG, params, HOW),
        NumpyTowers(CONFIG, tensors, HOW),
        OpenvinoTowers(CONFIG, tensors, HOW),
        OnnxTowers(CONFIG, tensors, HOW),
    ):
        np.testing.assert_allclose(towers.encode_texts(tokens), expected, atol=2e-6)
        # Padding has no effect.
        longer = np.pad(tokens, ((0, 0), (0, 3)))
        np.testing.assert_allclose(towers.encode_texts(longer), expected, atol=2e-6)


def test_padding_only_text_gives_finite_vectors() -> None:
    """The tokenizer always adds [CLS] and [SEP], but other callers may not."""
    tokens = np.zeros((1, 4), np.int32)
    tokens[0, 0] = CLS
    towers = NumpyTowers(CONFIG, random_tensors(), HOW)
    assert np.isfinite(towers.encode_texts(tokens)).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "bert"
    params = weights.params_from_hf(CONFIG, random_tensors())
    export_model.save(path, CONFIG, params, wordpiece(), HOW)
    return path


def test_save_and_load_round_trip(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert clip_config.from_hf(config) == CONFIG
    assert config["text_config"]["model_type"] == "bert"
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert (tokenizer["tokenizer_class"], tokenizer["pad_token"]) == ("BertTokenizer", "[PAD]")
    embedder = load_embedder(folder)
    texts = ["a river", "many boats with green trees", "Farmland ports"]
    tokens = np.zeros((3, 7), np.int32)
    tokens[0, :4] = [CLS, 4, 7, SEP]
    tokens[1, :7] = [CLS, *(VOCABULARY.index(word) for word in texts[1].split()), SEP]
    pieces = ["farm", "##land", "port", "##s"]
    tokens[2, :6] = [CLS, *(VOCABULARY.index(piece) for piece in pieces), SEP]
    expected = reference(random_tensors(), tokens)
    np.testing.assert_allclose(embedder.embed_texts(texts), expected, atol=2e-6)


def test_fingerprint_depends_on_the_text_tower() -> None:
    """With the same tensors, another pooling or attention gives other vectors."""
    other = dataclasses.replace(CONFIG, text=dataclasses.replace(TEXT, heads=2))
    assert repr(other) != repr(CONFIG)


def test_weights_must_be_complete() -> None:
    tensors = random_tensors()
    name = "text_model.encoder.layer.1.attention.output.LayerNorm.weight"
    del tensors[name]
    tensors["text_model.pooler.dense.weight"] = np.zeros((24, 24), np.float32)
    with pytest.raises(WeightsError, match=f"missing {name}; unused text_model.pooler"):
        clip_tensors.checked(CONFIG, tensors)
    params = weights.params_from_hf(CONFIG, random_tensors())
    back = weights.params_to_hf(params)
    assert set(back) == set(clip_tensors.shapes(CONFIG))
    for name, tensor in random_tensors().items():
        np.testing.assert_array_equal(back[name], tensor)


def test_first_layers_can_be_frozen() -> None:
    from rsicd_embed.embedder.clip.model import Clip

    names = list(named(nnx.state(nnx.eval_shape(lambda: Clip(CONFIG, rngs=nnx.Rngs(0))))))
    left = {name for name in names if name.startswith("text.")} - frozen(names, ["text:2"])
    assert left == {name for name in names if name.startswith("text.layers.2.")}


def test_gradients_reach_every_parameter() -> None:
    model = weights.build(CONFIG, weights.params_from_hf(CONFIG, random_tensors()))
    graph, params = nnx.split(model)
    tokens = jnp.asarray([[CLS, 5, 6, SEP, 0, 0]], jnp.int32)

    def first(params: nnx.State) -> jax.Array:
        return nnx.merge(graph, params).encode_text(tokens)[0, 0]

    slopes = named(jax.jit(jax.grad(first))(params))
    for name in (key for key in slopes if key.startswith("text")):
        # A key bias shifts all scores equally, so its gradient is 0.
        assert (np.abs(slopes[name]).max() > 1e-7) != name.endswith("key.bias"), name


class TestBertEmbedder(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, folder: Path) -> object:
        return load_embedder(folder)
