"""Which files a checkpoint consists of, in a directory or in a repository of the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rsicd_embed.embedder import training_words
from rsicd_embed.embedder.clip import weight_files
from rsicd_embed.errors import ModelError, WeightsError

Has = Callable[[str], bool]


@dataclass(frozen=True)
class CheckpointLayout:
    """The files of checkpoints of one kind.

    Attributes:
        kind: its name, for messages.
        example: the id of a checkpoint on the Hub, for messages.
        settings: files that it must have; the first lies in the checkpoint's folder.
        vocabularies: sets of files, of which it must have one.
        optional: files that it may have.
        weights: files, of which it must have one; the first that exists is used.
    """

    kind: str
    example: str
    settings: tuple[str, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    optional: tuple[str, ...]
    weights: tuple[str, ...]

    def missing(self, has: Has) -> list[str]:
        """What a checkpoint lacks, in words; `has` tells whether it has a file.

        Example:
            >>> CLIP.missing({"config.json", "vocab.json", "model.safetensors"}.__contains__)
            ['preprocessor_config.json', 'tokenizer.json (or vocab.json and merges.txt)']
        """
        missing = [name for name in self.settings if not has(name)]
        if len(self.vocabularies) == 1:  # each of its files is needed
            missing += [name for name in self.vocabularies[0] if not has(name)]
        elif self._vocabulary(has) is None:
            missing += _alternatives([" and ".join(names) for names in self.vocabularies])
        if self._weights(has) is None:
            missing += _alternatives(self.weights)
        return missing

    def used(self, has: Has) -> Iterator[str]:
        """The files of a checkpoint that lacks none, the shards of an index left out."""
        yield from self.settings
        yield from self._vocabulary(has) or ()
        yield from filter(has, self.optional)
        weights = self._weights(has)
        if weights is not None:
            yield weights

    def require(self, directory: Path) -> None:
        """Checks that a directory has every file of a checkpoint.

        Raises:
            ModelError: naming all that are missing; a WeightsError where only weights are.
        """
        missing = self.missing(lambda name: (directory / name).is_file())
        if missing:
            only_weights = missing == _alternatives(self.weights)
            error = WeightsError if only_weights else ModelError
            raise error(
                f"expected {', '.join(missing)} in {directory}, found none; give the directory of "
                f"a {self.kind} checkpoint that has them"
            )

    def _vocabulary(self, has: Has) -> tuple[str, ...] | None:
        return next((names for names in self.vocabularies if all(map(has, names))), None)

    def _weights(self, has: Has) -> str | None:
        return next(filter(has, self.weights), None)


def _alternatives(names: list[str] | tuple[str, ...]) -> list[str]:
    """`["a", "b"]` → `["a (or b)"]`; none of none."""
    first, *others = names or [""]
    return [f"{first} (or {', '.join(others)})" if others else first] if names else []


CLIP = CheckpointLayout(
    kind="CLIP",
    example="openai/clip-vit-base-patch32",
    settings=("config.json", "preprocessor_config.json"),
    vocabularies=(("tokenizer.json",), ("vocab.json", "merges.txt")),
    optional=("tokenizer_config.json", training_words.FILE),
    weights=weight_files.FILES,
)

# A CLIP's towers, without what they weigh.
CLIP_SHAPE = replace(CLIP, settings=("config.json",), vocabularies=(), optional=(), weights=())
