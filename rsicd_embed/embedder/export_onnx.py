"""Export of a model's towers as ONNX files, which ONNX Runtime, OpenVINO and others run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from rsicd_embed.embedder import preprocess
from rsicd_embed.embedder.clip import onnx_graph, parts
from rsicd_embed.embedder.export_model import (
    CARD,
    ExportedModel,
    require_new,
    tokenizer_files,
    write_json,
    written_aside,
)
from rsicd_embed.embedder.locate import locate

IMAGE, TEXT = "image.onnx", "text.onnx"
_LARGEST = 1 << 30  # bytes of weights within the file; protobuf ends at 2 GiB


def export_onnx(model: str | Path | None, out: Path) -> ExportedModel:
    """Atomically writes a model's towers as two ONNX files with float32 weights.

    `image.onnx` takes `pixels`, uint8 (b, side, side, 3), resized and cropped as
    `preprocessor_config.json` says but not normalised; `text.onnx` takes `tokens`, int64 (b, t), of
    `tokenizer.json`. Both return `vectors`, float32 (b, dim), of unit length. Weights of a tower
    of more than 1 GiB are in a file beside it.

    Args:
        model: as passed to `--model`.
        out: the directory to create.

    Raises:
        ModelError: the model does not exist, `out` exists, or onnx is not installed.
        StoreError: the directory cannot be written.
    """
    onnx_graph.require_onnx()
    require_new(out)
    located = locate(model)
    loaded = parts.read(located)
    tensors = {
        name: np.asarray(t, np.float32) if np.issubdtype(t.dtype, np.floating) else np.asarray(t)
        for name, t in loaded.tensors.items()
    }
    with written_aside(out) as directory:
        directory.mkdir()
        images = onnx_graph.image_graph(loaded.config, tensors, loaded.preprocessor)
        _save(images, directory / IMAGE)
        del images
        _save(onnx_graph.text_graph(loaded.config, tensors), directory / TEXT)
        fast, settings = tokenizer_files(loaded.config, loaded.tokenizer)
        pixels = preprocess.to_hf(loaded.preprocessor)
        write_json(
            directory, {"preprocessor_config.json": pixels, "tokenizer_config.json": settings}
        )
        fast.save(str(directory / "tokenizer.json"))
        if located.file is None and (located.directory / CARD).is_file():
            shutil.copyfile(located.directory / CARD, directory / CARD)
    size = sum(path.stat().st_size for path in out.glob("*.onnx*"))
    return ExportedModel(out, loaded.fingerprint, size, (out / CARD).exists())


def _save(graph: Any, path: Path) -> None:
    onnx = onnx_graph.require_onnx()
    onnx.save(
        graph,
        str(path),
        save_as_external_data=graph.ByteSize() > _LARGEST,
        location=f"{path.name}.data",
    )
    onnx.checker.check_model(str(path))
