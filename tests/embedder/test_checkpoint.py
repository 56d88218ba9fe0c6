"""Every checkpoint format gives the same embedder; hostile files are refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from flax.serialization import msgpack_serialize
from safetensors.numpy import load_file, save_file

from rsicd_embed.embedder.clip import torch_pickle, weight_files
from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import WeightsError

Tensors = dict[str, np.ndarray]


def as_shards(tensors: Tensors, folder: Path) -> None:
    names = sorted(tensors)
    files = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, shard in files.items():
        save_file({name: tensors[name] for name in shard}, folder / file)
    weight_map = {name: file for file, shard in files.items() for name in shard}
    (folder / weight_files.INDEX).write_text(json.dumps({"weight_map": weight_map}))


def as_flax(tensors: Tensors, folder: Path) -> None:
    """As FlaxCLIPModel.save_pretrained wrote it: flax-community/clip-rsicd is such a file."""
    tree: dict[str, object] = {}
    for name, tensor in tensors.items():
        *module, leaf = name.split(".")
        if leaf == "weight" and tensor.ndim == 4:
            leaf, tensor = "kernel", tensor.transpose(2, 3, 1, 0)
        elif leaf == "weight" and "embedding" in module[-1]:
            leaf = "embedding"
        elif leaf == "weight" and tensor.ndim == 2:
            leaf, tensor = "kernel", tensor.T
        elif leaf == "weight":
            leaf = "scale"
        node: dict[str, object] = tree
        for key in module:
            node = node.setdefault(key, {})  # type: ignore[assignment]
        node[leaf] = np.ascontiguousarray(tensor)
    (folder / weight_files.FLAX).write_bytes(msgpack_serialize(tree))


def as_torch(tensors: Tensors, folder: Path) -> None:
    state = {name: torch.tensor(tensor) for name, tensor in tensors.items()}
    name = "visual_projection.weight"
    state[name] = torch.nn.Parameter(state[name].T.contiguous().T)  # not in row order
    torch.save(state, folder / weight_files.TORCH)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model without its weights."""
    copied = shutil.copytree(tiny_model, tmp_path / "copy")
    (copied / weight_files.SAFETENSORS).unlink()
    return copied


@pytest.mark.parametrize("write", [as_shards, as_flax, as_torch])
def test_formats(tiny_model: Path, copy: Path, write: Callable[[Tensors, Path], None]) -> None:
    write(load_file(tiny_model / weight_files.SAFETENSORS), copy)
    ours = load_embedder(copy)
    assert ours.fingerprint == load_embedder(tiny_model).fingerprint


@pytest.mark.parametrize("write", ["torch", "safetensors"])
def test_bfloat16(tiny_model: Path, copy: Path, write: str) -> None:
    tensors = load_file(tiny_model / weight_files.SAFETENSORS)
    state = {name: torch.tensor(tensor).bfloat16() for name, tensor in tensors.items()}
    if write == "torch":
        torch.save(state, copy / weight_files.TORCH)
    else:
        from safetensors.torch import save_file as save_torch

        save_torch(state, copy / weight_files.SAFETENSORS)
    loaded = weight_files.load(copy)
    assert {tensor.dtype for tensor in loaded.values()} == {np.dtype(ml_dtypes.bfloat16)}
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor.astype(ml_dtypes.bfloat16))
    assert load_embedder(copy).embed_texts(["a"]).shape == (1, 64)


def test_position_ids_of_old_checkpoints_are_ignored(tiny_model: Path, copy: Path) -> None:
    tensors = load_file(tiny_model / weight_files.SAFETENSORS)
    tensors["text_model.embeddings.position_ids"] = np.arange(32)[None]
    save_file(tensors, copy / weight_files.SAFETENSORS)
    assert load_embedder(copy).fingerprint == load_embedder(tiny_model).fingerprint


class Evil:
    """Executes code when unpickled without restrictions."""

    def __init__(self, run: Any, argument: object) -> None:
        self.call = run, (argument,)

    def __reduce__(self) -> Any:
        return self.call


def bin_file(path: Path, content: object) -> None:
    data = io.BytesIO()
    pickle.Pickler(data, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data.getvalue())


def test_a_pickle_cannot_execute_code(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    bin_file(copy / weight_files.TORCH, {"weight": Evil(os.mkdir, "evil")})
    with pytest.raises(WeightsError, match=r"refers to .*mkdir.*do not trust"):
        load_embedder(copy)
    assert not (copy / "evil").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (weight_files.TORCH, b"not a zip", "expected a zip file"),
        (weight_files.TORCH, b"", "expected a zip file"),
        (weight_files.FLAX, b"\xc1garbage", "cannot be read"),
        (weight_files.INDEX, b"{}", "expected a weight_map"),
        (weight_files.INDEX, b'{"weight_map": {"a": "../a.safetensors"}}', "plain file names"),
        (weight_files.INDEX, b'{"weight_map": {"a": "missing.safetensors"}}', "beside it"),
    ],
)
def test_broken_files(copy: Path, name: str, content: bytes, message: str) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_embedder(copy)
    assert "\n" not in str(caught.value)


def test_a_pickle_without_a_state_dict_is_refused(copy: Path) -> None:
    bin_file(copy / weight_files.TORCH, ["a", "list"])
    with pytest.raises(WeightsError, match="expected a state dict"):
        load_embedder(copy)


def test_a_tensor_beyond_its_storage_is_refused(copy: Path) -> None:
    torch.save({"a": torch.ones(4, 4)}, copy / "whole.bin")
    with zipfile.ZipFile(copy / "whole.bin") as whole:
        entries = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(copy / weight_files.TORCH, "w") as cut:
        for name, data in entries.items():
            cut.writestr(name, data[:8] if "/data/" in name else data)
    with pytest.raises(WeightsError, match=r"cannot be read|beyond its storage"):
        load_embedder(copy)


def pickled(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def test_a_state_dict_written_by_pickle(tmp_path: Path) -> None:
    """Tensors of all dtypes, not in row order, and sharing a buffer, as torch pickles them."""
    buffer = torch.arange(24, dtype=torch.float32)
    tensors = {
        "float": torch.randn(2, 3),
        "half": torch.randn(4).half(),
        "bfloat": torch.randn(4).bfloat16(),
        "steps": torch.tensor(7),
        "turned": torch.randn(4, 5).T,
        "part": buffer[6:18].view(3, 4)[:, 1:3],
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    loaded = torch_pickle.load_plain(pickled(tmp_path / "state.pkl", tensors))
    for name, tensor in tensors.items():
        assert loaded[name].shape == tuple(tensor.shape), name
        expected = tensor.detach().float().numpy()
        np.testing.assert_array_equal(loaded[name].astype(np.float32), expected, err_msg=name)


def _from_bytes() -> Any:
    storage: Any = torch.storage
    return storage._load_from_bytes


def test_a_pickled_state_dict_cannot_execute_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in the pickle itself nor in one in place of a buffer."""
    monkeypatch.chdir(tmp_path)
    evil = Evil(os.mkdir, "evil")
    for content in (evil, Evil(_from_bytes(), pickle.dumps(evil))):
        path = pickled(tmp_path / "evil.pkl", {"weight": content})
        with pytest.raises(WeightsError, match=r"evil\.pkl: .*mkdir.*do not trust"):
            torch_pickle.load_plain(path)
        assert not (tmp_path / "evil").exists()


def test_broken_pickled_state_dicts(tmp_path: Path) -> None:
    whole = pickle.dumps({"weight": torch.ones(100)})
    broken = {
        "empty": b"",
        "text": b"not a pickle",
        "cut": whole[:-200],
        "other buffer": pickle.dumps({"weight": Evil(_from_bytes(), pickle.dumps(5) * 5)}),
        "a list": pickle.dumps([1, 2]),
    }
    for name, content in broken.items():
        path = tmp_path / "state.pkl"
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"state\.pkl") as caught:
            torch_pickle.load_plain(path)
        assert "\n" not in str(caught.value), name
    with pytest.raises(WeightsError, match="cannot be read"):
        torch_pickle.load_plain(tmp_path / "absent.pkl")
