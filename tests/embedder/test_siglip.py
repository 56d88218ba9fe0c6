"""SigLIP and SigLIP 2: the vectors, tokens, pixels and probabilities of transformers."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing

from rsicd_embed.embedder import preprocess, tokenizer
from rsicd_embed.embedder.clip import config as clip_config
from rsicd_embed.embedder.clip import parts, weights
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import ModelError, WeightsError
from rsicd_embed.testing.embedders import EmbedderContract
from tests.embedder.onnx_towers import OnnxTowers
from tests.embedder.open_clip_models import random_texts
from tests.reference import (
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTokenizer,
    T5Converter,
)

ENGINES = ("jax", "numpy", "openvino")
TEXTS = ("a harbour with boats", "Two PLANES, on a runway!", "", "日本の港", "long " * 200)
SAMPLES = 5000


def tiny(**vision: Any) -> SiglipConfig:
    tower = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    text = {"hidden_size": 48, "vocab_size": 400, "projection_size": 48, **tower}
    sizes = {"hidden_size": 48, "image_size": 32, "patch_size": 8}
    return SiglipConfig(text_config=text, vision_config={**sizes, **tower, **vision})


def model(config: SiglipConfig) -> SiglipModel:
    torch.manual_seed(0)
    built = SiglipModel(config).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if name == "logit_scale":
                parameter.fill_(float(np.log(110)))
            elif name == "logit_bias":
                parameter.fill_(-12.5)
            else:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return built


def unigram(folder: Path) -> SiglipTokenizer:
    """A sentencepiece model as SigLIP's, and `tokenizer.json` as it is published beside it."""
    lines = folder / "lines.txt"
    text = "a river's port boats planes on runway of harbour long naïve é 港 日 12,5 km²"
    words = text.split(" ")
    lines.write_text("".join(" ".join(words[i % 5 :: 2]) + f" {i}\n" for i in range(300)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(lines), model_prefix=str(folder / "spiece"), vocab_size=400, pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, hard_vocab_limit=False, character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    lines.unlink()
    slow = SiglipTokenizer(str(folder / "spiece.model"))
    slow._extra_ids = 0  # of T5, whose converter is used
    fast = T5Converter(slow).converted()
    fast.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return slow


def gemma(folder: Path) -> Any:
    """A byte-pair encoding like Gemma's, which SigLIP 2 uses."""
    letters = [chr(code) for code in range(0x61, 0x7B)] + ["▁", *"0123456789.,!é港"]
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)] + letters + ["bo", "at", "boat", "▁a"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [("b", "o"), ("a", "t"), ("bo", "at"), ("▁", "a")]
    slow = Siglip2Tokenizer(vocab=vocabulary, merges=merges, padding_side="right")
    slow._tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    slow.save_pretrained(folder)
    return slow


TOKENIZERS: dict[str, Callable[[Path], Any]] = {"siglip": unigram, "siglip2": gemma}


def write(folder: Path, built: SiglipModel, kind: str, **processor: Any) -> Any:
    """A directory as `save_pretrained` writes it."""
    folder.mkdir()
    built.save_pretrained(folder)
    size = built.config.vision_config.image_size
    SiglipImageProcessorPil(size={"height": size, "width": size}, **processor).save_pretrained(
        folder
    )
    return TOKENIZERS[kind](folder)


@pytest.fixture(scope="module")
def built() -> SiglipModel:
    return model(tiny())


@pytest.fixture(scope="module")
def folders(built: SiglipModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Folder and tokenizer of each kind."""
    root = tmp_path_factory.mktemp("siglip")
    return {kind: (root / kind, write(root / kind, built, kind)) for kind in TOKENIZERS}


def images(side: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    shades = ((1, 0.1, 0.2), (0.1, 0.9, 0.1), (0.5, 0.2, 1))
    return [
        Image.fromarray((draw.integers(0, 256, (side + n, side, 3)) * shade).astype(np.uint8))
        for n, shade in enumerate(shades)
    ]


def vectors(
    built: SiglipModel, folder: Path, tokenize: Any, texts: tuple[str, ...], pictures: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The reference's vectors of images and texts, and the probabilities of their pairs."""
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    pixels = processor(pictures, return_tensors="pt").pixel_values
    tokens = tokenize(
        list(texts), padding="max_length", max_length=64, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        out = built(pixel_values=pixels, input_ids=tokens)
    probabilities = torch.sigmoid(out.logits_per_image)
    return out.image_embeds.numpy(), out.text_embeds.numpy(), probabilities.numpy()


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("ignore:1 of 5 texts are longer")
def test_vectors_match_transformers(
    kind: str, engine: Any, built: SiglipModel, folders: dict[str, Any]
) -> None:
    folder, tokenize = folders[kind]
    pictures = images(40)
    expected = vectors(built, folder, tokenize, TEXTS, pictures)
    ours = load_embedder(folder, backend=engine)
    found = ours.embed_images(pictures), ours.embed_texts(TEXTS)
    if engine == "numpy":
        graphs, pixels = OnnxTowers.read(folder), np.stack([ours.preprocess(p) for p in pictures])
        np.testing.assert_allclose(graphs.encode_images(pixels), found[0], atol=2e-5)
        tokens = ours.tokenizer(TEXTS)  # type: ignore[attr-defined]
        np.testing.assert_allclose(graphs.encode_texts(tokens), found[1], atol=2e-5)
    for mine, theirs in zip(found, expected, strict=False):
        assert (mine * theirs).sum(axis=1).min() >= 0.99999
        np.testing.assert_allclose(mine, theirs, atol=2e-5)
    # The sigmoid's scale and bias are kept.
    logits = ours.logit_scale * found[0] @ found[1].T + ours.logit_bias  # type: ignore[attr-defined]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), expected[2], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_base_sizes_match_transformers(kind: str, tmp_path: Path) -> None:
    """SigLIP base and SigLIP 2 base at 224 px, with their numbers of tokens and fewer layers."""
    size = {"siglip": 32000, "siglip2": 256000}[kind]
    layers = {"num_hidden_layers": 2}
    built = model(SiglipConfig(text_config=layers | {"vocab_size": size}, vision_config=layers))
    tokenize = write(tmp_path / "base", built, kind, resample=3 if kind == "siglip" else 2)
    pictures = images(300)
    expected = vectors(built, tmp_path / "base", tokenize, TEXTS[:3], pictures)
    for engine in ("jax", "openvino"):
        ours = load_embedder(tmp_path / "base", backend=engine)  # type: ignore[arg-type]
        assert (ours.embed_images(pictures) * expected[0]).sum(axis=1).min() >= 0.9999
        assert (ours.embed_texts(TEXTS[:3]) * expected[1]).sum(axis=1).min() >= 0.9999


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokens_match_transformers(kind: str, folders: dict[str, Any]) -> None:
    folder, tokenize = folders[kind]
    ours = tokenizer.load(
        folder, context_length=64, vocab_size=400, eos_token_id=49407, siglip=True
    )
    # tokenizers composes letters by grapheme, sentencepiece by code point: é with another accent.
    samples = [unicodedata.normalize("NFC", text) for text in random_texts(SAMPLES)]
    with pytest.warns(UserWarning, match="were cut"):
        ids = ours(samples)
    expected = tokenize(samples, padding="max_length", max_length=64, truncation=True).input_ids
    np.testing.assert_array_equal(ids, np.array(expected))


@pytest.mark.parametrize("resample", [2, 3])
def test_pixels_match_siglip_image_processor(resample: int, tmp_path: Path) -> None:
    theirs = SiglipImageProcessorPil(size={"height": 224, "width": 224}, resample=resample)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    ours = preprocess.from_hf(config)
    assert ours.crop is None
    assert preprocess.from_hf(preprocess.to_hf(ours)) == ours
    # Keys that older files leave out.
    short = {key: config[key] for key in ("image_processor_type", "size", "resample")}
    assert preprocess.from_hf(short) == ours
    for side in (31, 224, 300, 517):
        for image in images(side):
            expected = theirs(image, return_tensors="np").pixel_values[0].transpose(1, 2, 0)
            np.testing.assert_allclose(ours.normalise(ours(image)), expected, atol=1e-6)


def test_round_trip(folders: dict[str, Any], built: SiglipModel) -> None:
    read = parts.read(folders["siglip2"][0])
    assert clip_config.from_hf(clip_config.to_hf(read.config, bos_token_id=2, logit_scale=0)) == (
        read.config
    )
    back = weights.params_to_hf(weights.params_from_hf(read.config, read.tensors))
    assert set(back) == set(read.tensors)
    for name, tensor in read.tensors.items():
        np.testing.assert_array_equal(back[name], tensor, err_msg=name)


def test_broken_siglips_are_refused(built: SiglipModel, tmp_path: Path) -> None:
    write(tmp_path / "model", built, "siglip2")
    folder = tmp_path / "model"
    config = json.loads((folder / "config.json").read_text())

    def refused(message: str, **change: Any) -> None:
        content = json.dumps(config | change)
        (folder / "config.json").write_text(content)
        with pytest.raises(ModelError, match=message) as caught:
            parts.read(folder)
        assert "\n" not in str(caught.value)

    vision, text = config["vision_config"], config["text_config"]
    refused("attention-pooling head", vision_config=vision | {"vision_use_head": False})
    refused("as long as the image's, 48", text_config=text | {"projection_size": 32})
    refused("vocabulary of 99, found", text_config=text | {"vocab_size": 99})
    refused("expected model_type 'clip', 'siglip' or .*, found 'siglip2'", model_type="siglip2")
    refused(
        r"vision_model\.head\.mlp\.fc1\.weight: expected shape \(100, 48\), found \(96, 48\)",
        vision_config=vision | {"intermediate_size": 100},
    )
    (folder / "config.json").write_text(json.dumps(config))
    state = dict(built.state_dict())
    del state["vision_model.head.attention.in_proj_bias"]
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"missing vision_model\.head\.attention\.in_proj_bias$"):
        parts.read(folder)


class TestSiglipEmbedder(EmbedderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def embedder(cls, folders: dict[str, Any]) -> object:
        return load_embedder(folders["siglip"][0])
