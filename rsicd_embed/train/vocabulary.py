"""A byte-pair vocabulary of CLIP's kind, learnt from captions."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from rsicd_embed.embedder.tokenizer import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    WORD_END,
    clip_bpe,
    clip_pipeline,
)


def train(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learns merges from captions; any other text is still spelt, byte by byte.

    Ids are in CLIP's order: 256 bytes, the same ending a word, merges, begin, end.
    """
    learner = clip_pipeline(models.BPE(end_of_word_suffix=WORD_END))
    alphabet = sorted(ByteLevel.alphabet())
    letters = [*alphabet, *(byte + WORD_END for byte in alphabet)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        end_of_word_suffix=WORD_END,
        # The learner breaks ties by id, and would number letters in an order that varies by run.
        special_tokens=letters,
        min_frequency=2,
        show_progress=False,
    )
    learner.train_from_iterator(captions, trainer)
    learnt = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    tokens = dict.fromkeys(letters)
    merges = []
    for left, right in learnt:
        if len(tokens) == vocab_size - 2:
            break
        merges.append((left, right))
        tokens[left + right] = None
    while len(tokens) < vocab_size - 2:  # few captions leave ids unused
        tokens[f"<|unused{len(tokens)}|>"] = None
    names = [*tokens, BEGIN_OF_TEXT, END_OF_TEXT]
    return clip_bpe({token: i for i, token in enumerate(names)}, merges)
