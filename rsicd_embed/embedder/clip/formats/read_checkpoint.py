"""Reads checkpoints without a Hugging Face config: open_clip's folders, and single files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rsicd_embed.embedder import clip_vocabulary, preprocess, tokenizer
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.embedder.clip.config import Activation, BertConfig, ClipConfig
from rsicd_embed.embedder.clip.formats import naming, open_clip_config, torchscript
from rsicd_embed.embedder.clip.model_parts import ModelParts
from rsicd_embed.embedder.clip.resnet_config import ResNetConfig
from rsicd_embed.embedder.clip.tensors import checked
from rsicd_embed.embedder.hub import fetch
from rsicd_embed.embedder.layout import OPEN_CLIP
from rsicd_embed.embedder.locate import Located
from rsicd_embed.embedder.tokenizer import Tokenizer
from rsicd_embed.errors import ModelError, WeightsError
from rsicd_embed.files import read_json

# Tensors by which other kinds of checkpoints are recognised, and what to do with them.
_OTHERS = (
    ("lora_", "the adapters of a fine-tuned model (LoRA)", "merge them into the model and save it"),
    ("model.diffusion_model.", "a diffusion model", "pass the CLIP that its text encoder is from"),
    ("cond_stage_model.", "a diffusion model", "pass the CLIP that its text encoder is from"),
)


def read(located: Located) -> ModelParts:
    """Reads a checkpoint file, or a folder with an `open_clip_config.json`.

    A file without a config has CLIP's tokenizer and preprocessing.

    Raises:
        ModelError: the config is invalid, or the activation is unknown.
        WeightsError: the file cannot be read, or is another kind of checkpoint.
    """
    content: Mapping[str, Any] = {}
    if located.file is None:
        OPEN_CLIP.require(located.directory)
        content = read_json(located.directory / open_clip_config.FILE)
        names = OPEN_CLIP.used(lambda name: (located.directory / name).is_file())
        path = located.directory / list(names)[-1]
    else:
        path = located.directory / located.file
    stored = weight_files.load_file(path)
    _refuse_others(path, stored)
    if content:
        config = open_clip_config.from_config(content, stored)
        require_activation(located, config)
    else:
        try:
            config = open_clip_config.from_tensors(stored, _activation(located, path))
        except ModelError as error:
            raise WeightsError(f"{path}: {error}") from error
    text = content.get("model_cfg", {}).get("text_cfg", {})
    tokens = _tokenizer(located.directory if content else path.parent, config, text)
    pixels = preprocess.from_open_clip(content.get("preprocess_cfg") or {}, config.image_size)
    return ModelParts(
        config, checked(config, stored, naming.open_clip(config, stored)), tokens, pixels
    )


def require_activation(located: Located, config: ClipConfig) -> None:
    """Checks that an activation given by the user is the config's.

    Raises:
        ModelError: they differ.
    """
    towers = {"image": config.vision, "text": config.text}
    for name, tower in towers.items():
        if located.activation is None or isinstance(tower, ResNetConfig | BertConfig):
            continue
        if tower.activation != located.activation:
            raise ModelError(
                f"the config of {located.directory} says {tower.activation} for the {name} tower, "
                f"found activation {located.activation}; omit it"
            )


def _activation(located: Located, path: Path) -> Activation:
    """The activation given by the user, the list of models, or the code of a TorchScript
    archive."""
    in_code = torchscript.activation(path)
    if located.activation is None and in_code is not None:
        return in_code
    if located.activation is None:
        raise ModelError(
            "nothing says whether its transformers use QuickGELU, and the wrong choice gives "
            "plausible but worse vectors; pass --activation quick_gelu for models that started "
            "from OpenAI's weights, or --activation gelu for LAION's and most others; or append it "
            "to the file's name, as ?activation=gelu"
        )
    if in_code not in (None, located.activation):
        raise ModelError(f"its code uses {in_code}, found activation {located.activation}; omit it")
    return located.activation


def _refuse_others(path: Path, tensors: weight_files.Tensors) -> None:
    for part, kind, advice in _OTHERS:
        name = next((name for name in tensors if part in name), None)
        if name is not None:
            raise WeightsError(
                f"{path}: expected a CLIP, found {kind}, with a tensor {name}; {advice}"
            )


def _tokenizer(directory: Path, config: ClipConfig, text: Mapping[str, Any]) -> Tokenizer:
    cleaning = (text.get("tokenizer_kwargs") or {}).get("clean")
    name = text.get("hf_tokenizer_name")
    if name is None and not text.get("hf_model_name"):
        if config.vocab_size != clip_vocabulary.SIZE:
            raise ModelError(
                f"expected a vocabulary of {clip_vocabulary.SIZE} tokens, CLIP's, for a checkpoint "
                f"without a tokenizer, found {config.vocab_size}"
            )
        tokens = clip_vocabulary.clip_tokenizer(directory)
        return Tokenizer(
            tokens,
            context_length=config.context_length,
            pad_id=0,
            cleaning=cleaning or "lower",
        )
    if not (directory / "tokenizer.json").is_file():
        directory = fetch(str(name or text["hf_model_name"]), None, "tokenizer.json").parent
    loaded = tokenizer.load(
        directory,
        context_length=config.context_length,
        vocab_size=config.vocab_size,
        eos_token_id=config.eos_token_id,
        cleaning=cleaning or "whitespace",
    )
    if isinstance(config.text, BertConfig):
        loaded.pad_id = config.text.pad_token_id  # masked by the tower
    return loaded
