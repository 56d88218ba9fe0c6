"""Models by Hugging Face id, against a small stand-in for the Hub on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

from rsicd_embed.embedder.loading import load_embedder
from rsicd_embed.errors import ModelError
from rsicd_embed.train.config import ModelConfig
from rsicd_embed.train.initialization import shape_of

COMMITS = {"main": "a" * 40, "v1": "b" * 40}


class Hub:
    """Repositories by name, with folders by revision; counts requests."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Path]] = {}
        self.gated: set[str] = set()
        self.fetched: list[str] = []
        self.requests = 0
        self.broken = False
        self.lists_files = False
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, *, with_body: bool) -> None:
                hub.requests += 1
                first, *others = unquote(self.path).strip("/").split("/")
                if first == "api":
                    return self.list_files("/".join(others[1:3]))
                name, resolve, revision, *rest = others
                assert resolve == "resolve"
                repo, file = f"{first}/{name}", "/".join(rest)
                names = {commit: tag for tag, commit in COMMITS.items()}
                revision = names.get(revision, revision)
                if hub.broken:
                    return self.fail(500, None)
                if repo in hub.gated:
                    return self.fail(403, "GatedRepo")
                if repo not in hub.repos:
                    return self.fail(404, "RepoNotFound")
                if revision not in hub.repos[repo]:
                    return self.fail(404, "RevisionNotFound")
                path = hub.repos[repo][revision] / file
                if not path.is_file():
                    return self.fail(404, "EntryNotFound", commit=COMMITS[revision])
                data = path.read_bytes()
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMITS[revision])
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if with_body:
                    hub.fetched.append(file)
                    self.wfile.write(data)
                return None

            def list_files(self, repo: str) -> None:
                if not hub.lists_files:
                    return self.fail(500, None)
                names = sorted(path.name for path in hub.repos[repo]["main"].iterdir())
                siblings = [{"rfilename": name} for name in names]
                data = json.dumps({"id": repo, "siblings": siblings}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                return None

            def fail(self, status: int, code: str | None, commit: str | None = None) -> None:
                self.send_response(status)
                if code:
                    self.send_header("X-Error-Code", code)
                if commit:
                    self.send_header("X-Repo-Commit", commit)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    stand_in = Hub()
    thread = threading.Thread(target=stand_in.server.serve_forever, args=(0.01,))
    thread.start()
    template = stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield stand_in
    stand_in.server.shutdown()
    thread.join()
    stand_in.server.server_close()


def test_a_models_shape_is_fetched_without_weights(hub: Hub, tiny_model: Path) -> None:
    hub.repos["some/clip"] = {"main": tiny_model}
    assert shape_of(ModelConfig("some/clip")) == shape_of(ModelConfig(str(tiny_model)))
    assert hub.fetched == ["config.json"]


def test_by_id_and_by_revision(hub: Hub, tiny_model: Path, other_model: Path) -> None:
    hub.repos["some/clip"] = {"main": tiny_model, "v1": other_model}
    newest = load_embedder("some/clip")
    assert newest.name == "some/clip"
    assert newest.fingerprint == load_embedder(tiny_model).fingerprint
    for revision in ("v1", COMMITS["v1"]):
        pinned = load_embedder(f"some/clip@{revision}")
        assert pinned.name == f"some/clip@{revision}"
        assert pinned.fingerprint == load_embedder(other_model).fingerprint


def test_only_one_weight_file_is_fetched(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    full = shutil.copytree(tiny_model, tmp_path / "full")
    for name in ("flax_model.msgpack", "pytorch_model.bin", "tf_model.h5", "README.md"):
        (full / name).write_bytes(b"large")
    hub.repos["some/clip"] = {"main": full}
    load_embedder("some/clip")
    assert sorted(hub.fetched) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_cache_serves_without_a_network(
    hub: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["some/clip"] = {"main": tiny_model}
    first = load_embedder("some/clip")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_embedder("some/clip").fingerprint == first.fingerprint
    with pytest.raises(ModelError, match=r"some/other is not a directory.*cannot be reached"):
        load_embedder("some/other")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no/such", r"no/such is neither a directory here nor a model on the Hub"),
        ("some/clip@v9", r"some/clip@v9: the repository has no such revision"),
        ("its/gated", r"its/gated is gated: accept its terms"),
        (
            "not/clip",
            r"not/clip is not a CLIP checkpoint: expected preprocessor_config\.json, "
            r"tokenizer\.json \(or vocab\.json and merges\.txt\) in the repository, found none",
        ),
        ("no/weights", r"no/weights is not a CLIP checkpoint: expected model\.safetensors \(or "),
    ],
)
def test_unavailable_models_are_refused(
    hub: Hub, tiny_model: Path, tmp_path: Path, model: str, message: str
) -> None:
    def without(*names: str) -> dict[str, Path]:
        copied = shutil.copytree(tiny_model, tmp_path / names[0])
        for name in names:
            (copied / name).unlink()
        return {"main": copied}

    hub.gated.add("its/gated")
    hub.repos = {
        "some/clip": {"main": tiny_model},
        "not/clip": without("preprocessor_config.json", "tokenizer.json"),
        "no/weights": without("model.safetensors"),
    }
    with pytest.raises(ModelError, match=message) as caught:
        load_embedder(model)
    assert "\n" not in str(caught.value)
    assert hub.fetched == []


def test_checkpoints_without_a_config_are_listed(hub: Hub, tmp_path: Path) -> None:
    for name in ("a.pt", "b.safetensors", "README.md"):
        (tmp_path / name).touch()
    hub.repos["some/weights"] = {"main": tmp_path}
    hub.lists_files = True
    found = r"found checkpoints .*; name one of some/weights:a\.pt, some/weights:b\.safetensors$"
    with pytest.raises(ModelError, match=found):
        load_embedder("some/weights")


def test_a_failing_hub_is_queried_once(
    hub: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["some/clip"] = {"main": tiny_model}
    first = load_embedder("some/clip")
    hub.broken, hub.requests = True, 0
    assert load_embedder("some/clip").fingerprint == first.fingerprint  # from the cache
    with pytest.raises(ModelError, match=r"some/other cannot be downloaded from the Hub: .*500"):
        load_embedder("some/other")
    assert hub.requests == 2
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections but never answers
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url_template(silent))
        monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.1")
        assert load_embedder("some/clip").fingerprint == first.fingerprint
        with pytest.raises(ModelError, match=r"some/other is not a directory .*cannot be reached"):
            load_embedder("some/other")
        assert connections(silent) == 2  # the Hub's library would retry six times, for 25 s
    with pytest.raises(ModelError, match=r"some/other is not a directory .*cannot be reached \("):
        load_embedder("some/other")  # no server is listening


def connections(server: socket.socket) -> int:
    """Number of connections so far."""
    server.setblocking(False)
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


def url_template(server: socket.socket) -> str:
    port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"


def test_the_endpoint_comes_from_the_environment(
    hub: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    hub.repos["some/clip"] = {"main": tiny_model}
    code = "import rsicd_embed as r; print(r.load_embedder('some/clip').fingerprint)"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == load_embedder(tiny_model).fingerprint, done.stderr


def test_vocabulary_and_merges_instead_of_a_tokenizer(tiny_model: Path, tmp_path: Path) -> None:
    """As in the oldest CLIP checkpoints."""
    old = shutil.copytree(tiny_model, tmp_path / "old")
    model = json.loads((old / "tokenizer.json").read_text())["model"]
    (old / "tokenizer.json").unlink()
    (old / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (old / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    texts = ["many planes are parked .", "it's naïve", ""]
    new, same = load_embedder(tiny_model).tokenizer(texts), load_embedder(old).tokenizer(texts)
    assert (new == same).all()
