"""open_clip's Hugging Face text towers (XLM-R, BERT), and exports in its layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from rsicd_embed.embedder.clip import parts
from rsicd_embed.embedder.export_model import export_model
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.embedder.locate import locate
from rsicd_embed.errors import ModelError
from tests.embedder import open_clip_models as reference
from tests.embedder.onnx_towers import OnnxTowers
from tests.reference import BertModelConfig, SiglipModel, XLMRobertaConfig

ENGINES = ("jax", "numpy", "openvino")
TEXTS = ("a port with boats", "“ Port ” &amp; port", "", "boats " * 90)
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "port", "with", "boats", "&", '"', "Port", "“", "”"]
POOLERS = {
    "mean, MLP": {"hf_pooler_type": "mean_pooler", "hf_proj_type": "mlp"},
    "mean, linear": {"hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"},
    "first": {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_proj_type": "linear"},
}


def encoder(folder: Path, kind: str, **sizes: int) -> Path:
    """A folder with the config and tokenizer of a text model, in place of a name on the Hub."""
    sizes = {
        "vocab_size": len(WORDS), "hidden_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 192, **sizes,
    }  # fmt: skip
    if kind == "xlm-roberta":
        XLMRobertaConfig(
            **sizes, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
        ).save_pretrained(folder)
    else:
        BertModelConfig(**sizes).save_pretrained(folder)
    words = WORDS if kind == "xlm-roberta" else [WORDS[i] for i in (1, 0, *range(2, len(WORDS)))]
    ids = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def built(folder: Path, kind: str, pooler: str, **sizes: int) -> tuple[Any, dict[str, Any]]:
    name = str(encoder(folder / f"{kind}-tiny", kind, **sizes))
    config = {
        "embed_dim": 48,
        "vision_cfg": reference.VIT,
        "text_cfg": {
            "hf_model_name": name, "hf_tokenizer_name": name, "hf_model_pretrained": False,
            **POOLERS[pooler],
        },
    }  # fmt: skip
    return reference.model(config, reference.CustomTextCLIP), config


def hub_folder(folder: Path, kind: str, pooler: str) -> tuple[Path, Any, dict[str, Any]]:
    model, config = built(folder, kind, pooler)
    hub = reference.hub_folder(folder / "hub", model, config)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (hub / file).write_bytes((folder / f"{kind}-tiny" / file).read_bytes())
    return hub, model, config


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "pooler"),
    [("xlm-roberta", "mean, MLP"), ("xlm-roberta", "first"), ("bert", "mean, linear")],
)
def test_vectors_match_open_clip(kind: str, pooler: str, tmp_path: Path) -> None:
    hub, model, config = hub_folder(tmp_path, kind, pooler)
    tokenize = reference.open_clip.tokenizer.HFTokenizer(config["text_cfg"]["hf_tokenizer_name"])
    with torch.no_grad():
        expected = model.encode_text(tokenize(list(TEXTS)), normalize=True).numpy()
    for engine in ENGINES:
        ours = load_embedder(hub, backend=engine)  # type: ignore[arg-type]
        vectors = ours.embed_texts(TEXTS)
        assert (vectors * expected).sum(axis=1).min() >= 0.99999, engine
        np.testing.assert_allclose(vectors, expected, atol=2e-5, err_msg=engine)
    tokens = ours.tokenizer(TEXTS)  # type: ignore[attr-defined]
    np.testing.assert_allclose(OnnxTowers.read(hub).encode_texts(tokens), expected, atol=2e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_xlm_roberta_base_matches_open_clip(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072,
    }  # fmt: skip
    model, config = built(tmp_path, "xlm-roberta", "mean, MLP", **sizes)
    hub = reference.hub_folder(tmp_path / "hub", model, config)
    (hub / "tokenizer.json").write_bytes(
        (tmp_path / "xlm-roberta-tiny" / "tokenizer.json").read_bytes()
    )
    tokenize = reference.open_clip.tokenizer.HFTokenizer(config["text_cfg"]["hf_tokenizer_name"])
    with torch.no_grad():
        expected = model.encode_text(tokenize(list(TEXTS)), normalize=True).numpy()
    for engine in ("jax", "openvino"):
        vectors = load_embedder(hub, backend=engine).embed_texts(TEXTS)  # type: ignore[arg-type]
        assert (vectors * expected).sum(axis=1).min() >= 0.9999


def test_other_text_towers_are_refused(tmp_path: Path) -> None:
    hub, _, config = hub_folder(tmp_path, "xlm-roberta", "mean, MLP")

    def refused(message: str, **change: Any) -> None:
        text = config["text_cfg"] | change
        content = {"model_cfg": config | {"text_cfg": text}, "preprocess_cfg": {}}
        (hub / "open_clip_config.json").write_text(json.dumps(content))
        with pytest.raises(ModelError, match=message) as caught:
            parts.read(hub)
        assert "\n" not in str(caught.value)

    refused(
        "expected a BERT, RoBERTa or XLM-R text tower, found google/mt5", hf_model_name="google/mt5"
    )
    refused("expected a pooler of mean_pooler, .*found 'cls_pooler'", hf_pooler_type="cls_pooler")
    refused("expected a context of at most 512, found 513", context_length=513)
    refused("expected text_cleaning to be none, .*'x'", tokenizer_kwargs={"clean": "x"})
    torch.save(
        {"text.transformer.embeddings.word_embeddings.weight": torch.ones(3, 4)}, hub / "a.pt"
    )
    with pytest.raises(ModelError, match=r"whose heads and pooling are in open_clip_config\.json"):
        parts.read(locate(hub / "a.pt", activation="gelu"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["resnet", "xlm-roberta", "vit"])
def test_exports_load_in_the_library_that_has_the_architecture(kind: str, tmp_path: Path) -> None:
    if kind == "xlm-roberta":
        source, model, _ = hub_folder(tmp_path, kind, "mean, MLP")
        original = locate(source)
    else:
        vision = reference.RESNET if kind == "resnet" else reference.VIT
        model = reference.model(reference.settings(vision, quick=True))
        torch.save(model.state_dict(), tmp_path / "model.pt")
        original = locate(tmp_path / "model.pt", activation="quick_gelu")
    exported = export_model(original.name, tmp_path / "out")
    assert exported.fingerprint == parts.read(original).fingerprint
    if kind == "vit":
        from tests.reference import CLIPModel, CLIPTokenizer

        theirs = CLIPModel.from_pretrained(exported.directory).eval()
        tokens = CLIPTokenizer.from_pretrained(exported.directory)(
            ["a PORT, with boats"], return_tensors="pt"
        )
        with torch.no_grad():
            text = theirs(**tokens, pixel_values=torch.zeros(1, 3, 32, 32)).text_embeds
            image = theirs(**tokens, pixel_values=torch.zeros(1, 3, 32, 32)).image_embeds
            expected = model.encode_image(torch.zeros(1, 3, 32, 32), normalize=True)
        np.testing.assert_allclose(image.numpy(), expected.numpy(), atol=2e-5)
        ours = load_embedder(exported.directory, backend="numpy").embed_texts(
            ["a PORT, with boats"]
        )
        np.testing.assert_allclose(ours, text.numpy(), atol=2e-5)
        return
    content = json.loads((exported.directory / "open_clip_config.json").read_text())
    if kind == "xlm-roberta":  # whose sizes open_clip takes from the Hub, by its name
        assert content["model_cfg"]["text_cfg"]["hf_model_name"] == "xlm-roberta-base"
        from safetensors.torch import load_file

        content["model_cfg"]["text_cfg"]["hf_model_name"] = str(tmp_path / "xlm-roberta-tiny")
        theirs = reference.model(content["model_cfg"], reference.CustomTextCLIP)
        theirs.load_state_dict(load_file(exported.directory / "open_clip_model.safetensors"))
    else:
        theirs = reference.open_clip.create_model(f"local-dir:{exported.directory}").eval()
    side = content["model_cfg"]["vision_cfg"]["image_size"]
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for image in (theirs.encode_image(pixels), theirs.encode_image(-pixels)):
            assert torch.isfinite(image).all()
        np.testing.assert_allclose(
            theirs.encode_image(pixels, normalize=True),
            model.encode_image(pixels, normalize=True),
            atol=2e-5,
        )


def test_siglips_are_exported_for_transformers(tmp_path: Path) -> None:
    from tests.embedder import test_siglip as siglip

    model = siglip.model(siglip.tiny())
    siglip.write(tmp_path / "source", model, "siglip2")
    exported = export_model(tmp_path / "source", tmp_path / "out")
    assert exported.fingerprint == parts.read(tmp_path / "source").fingerprint
    theirs, info = SiglipModel.from_pretrained(exported.directory, output_loading_info=True)
    assert not any(info.values()), info
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], tensor)


def test_training_starts_from_every_kind(tmp_path: Path) -> None:
    from rsicd_embed.train.config import ModelConfig
    from rsicd_embed.train.initialization import from_checkpoint, shape_of
    from tests.embedder import test_siglip as siglip

    model = reference.model(reference.settings(reference.RESNET))
    torch.save(model.state_dict(), tmp_path / "rn.pt")
    siglip.write(tmp_path / "siglip", siglip.model(siglip.tiny()), "siglip2")
    for name in (f"{tmp_path / 'rn.pt'}?activation=gelu", str(tmp_path / "siglip")):
        start = from_checkpoint(name)
        assert shape_of(ModelConfig(name)) == start.shape
        assert start.origin == parts.read(locate(name)).fingerprint
