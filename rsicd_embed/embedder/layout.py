"""The files of a checkpoint, in a directory or a repository of the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.errors import ModelError, WeightsError

Has = Callable[[str], bool]

_CHECKPOINTS = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")


def is_checkpoint(name: str) -> bool:
    """Whether a file's name is that of a PyTorch checkpoint or of safetensors."""
    return name.lower().endswith(_CHECKPOINTS)


@dataclass(frozen=True)
class CheckpointLayout:
    """The files of one kind of checkpoint.

    Attributes:
        kind: name of the kind, for messages.
        example: id of a checkpoint on the Hub, for messages.
        settings: required files; the first is in the checkpoint's folder.
        vocabularies: alternative sets of files, one of which is required.
        optional: optional files.
        weights: alternative files, one of which is required; the first that exists is used.
    """

    kind: str
    example: str
    settings: tuple[str, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    weights: tuple[str, ...]

    def missing(self, has: Has) -> list[str]:
        """Describes the missing files of a checkpoint; `has` checks whether it has a file.

        Example:
            >>> CLIP.missing({"config.json", "vocab.json", "model.safetensors"}.__contains__)
            ['preprocessor_config.json', 'tokenizer.json (or vocab.json and merges.txt)']
        """
        missing = [name for name in self.settings if not has(name)]
        if len(self.vocabularies) == 1:  # all of its files are required
            missing += [name for name in self.vocabularies[0] if not has(name)]
        elif self._vocabulary(has) is None:
            missing += _alternatives([" and ".join(names) for names in self.vocabularies])
        if self._weights(has) is None:
            missing += _alternatives(self.weights)
        return missing

    def used(self, has: Has) -> Iterator[str]:
        """The files used from a complete checkpoint, without the shards of an index."""
        yield from self.settings
        yield from self._vocabulary(has) or ()
        yield from filter(has, self.optional)
        weights = self._weights(has)
        if weights is not None:
            yield weights

    def require(self, directory: Path) -> None:
        """Checks that a directory has all files of a checkpoint.

        Raises:
            ModelError: files are missing; a WeightsError if only the weights are.
        """
        missing = self.missing(lambda name: (directory / name).is_file())
        if missing:
            only_weights = missing == _alternatives(self.weights)
            error = WeightsError if only_weights else ModelError
            raise error(
                f"expected {', '.join(missing)} in {directory}, found none; pass the directory of "
                f"a {self.kind} checkpoint that has them"
            )

    def _vocabulary(self, has: Has) -> tuple[str, ...] | None:
        return next((names for names in self.vocabularies if all(map(has, names))), None)

    def _weights(self, has: Has) -> str | None:
        return next(filter(has, self.weights), None)


def _alternatives(names: list[str] | tuple[str, ...]) -> list[str]:
    """`["a", "b"]` → `["a (or b)"]`."""
    first, *others = names or [""]
    return [f"{first} (or {', '.join(others)})" if others else first] if names else []


CLIP = CheckpointLayout(
    kind="CLIP",
    example="openai/clip-vit-base-patch32",
    settings=("config.json", "preprocessor_config.json"),
    vocabularies=(("tokenizer.json",), ("vocab.json", "merges.txt")),
    optional=("tokenizer_config.json", "spiece.model", training_words.FILE),
    weights=weight_files.FILES,
)

# The layout of open_clip's models on the Hub. Their tokenizer is CLIP's unless there is another.
OPEN_CLIP = CheckpointLayout(
    kind="CLIP",
    example="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    settings=("open_clip_config.json",),
    vocabularies=((),),
    optional=("tokenizer.json", "tokenizer_config.json", training_words.FILE),
    weights=("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)

# The shape of a CLIP model, without weights.
CLIP_SHAPE = replace(CLIP, settings=("config.json",), vocabularies=(), optional=(), weights=())
