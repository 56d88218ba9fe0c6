"""The reference implementations: transformers' CLIP and torchvision's ResNet, in PyTorch.

torchvision's registry wheel fails to import beside a CPU build of torch, which lacks the operators
it refers to; declaring them first is enough for everything that is used here.
"""

from __future__ import annotations

import importlib

import torch

_OPERATORS = torch.library.Library("torchvision", "DEF")
try:
    importlib.import_module("torchvision")
except RuntimeError:
    for signature in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        _OPERATORS.define(signature)

from torchvision.models import resnet18, resnet50  # noqa: E402
from transformers import BertConfig as BertModelConfig  # noqa: E402
from transformers import (  # noqa: E402
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    XLMRobertaConfig,
)
from transformers.convert_slow_tokenizer import T5Converter  # noqa: E402
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil  # noqa: E402
from transformers.models.siglip.image_processing_pil_siglip import (  # noqa: E402
    SiglipImageProcessorPil,
)
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer  # noqa: E402

__all__ = [
    "BertModel",
    "BertModelConfig",
    "CLIPConfig",
    "CLIPImageProcessor",
    "CLIPImageProcessorPil",
    "CLIPModel",
    "CLIPTokenizer",
    "Siglip2Tokenizer",
    "SiglipConfig",
    "SiglipImageProcessorPil",
    "SiglipModel",
    "SiglipTokenizer",
    "T5Converter",
    "XLMRobertaConfig",
    "resnet18",
    "resnet50",
]
