"""A byte-pair vocabulary of CLIP's kind, learnt from captions."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre
from tokenizers.processors import TemplateProcessing

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_SUFFIX = "</w>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges from captions; any other text is still spelt, byte by byte.

    Ids are in CLIP's order: 256 bytes, the same ending a word, merges, begin, end.
    """
    learner = _pipeline(Tokenizer(models.BPE(end_of_word_suffix=_SUFFIX)))
    alphabet = sorted(pre.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        end_of_word_suffix=_SUFFIX,
        initial_alphabet=alphabet,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    merges = [tuple(merge) for merge in _merges(learner)]
    tokens = [*alphabet, *(byte + _SUFFIX for byte in alphabet)]
    room = vocab_size - 2 - len(tokens)
    vocabulary: dict[str, int] = {token: i for i, token in enumerate(tokens)}
    kept = []
    for left, right in merges:
        if len(vocabulary) - len(tokens) == room:
            break
        kept.append((left, right))
        vocabulary.setdefault(left + right, len(vocabulary))
    while len(vocabulary) < vocab_size - 2:  # few captions leave ids unused
        vocabulary[f"<|unused{len(vocabulary)}|>"] = len(vocabulary)
    vocabulary[BEGIN], vocabulary[END] = vocab_size - 2, vocab_size - 1
    tokenizer = _pipeline(
        Tokenizer(models.BPE(vocabulary, kept, end_of_word_suffix=_SUFFIX, unk_token=END))
    )
    tokenizer.add_special_tokens(
        [AddedToken(BEGIN, normalized=False), AddedToken(END, normalized=False)]
    )
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} $B:1 {END}:1",
        special_tokens=[(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])],
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pipeline(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    import json

    return list(json.loads(tokenizer.to_str())["model"]["merges"])
