"""Evaluation of embedders: zero-shot classification, retrieval, probes, forgetting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rsicd_embed.plugins import lazy_exports

if TYPE_CHECKING:
    from rsicd_embed.evaluation.dataset import EvalSet, Labelled, labelled, open_set, with_captions
    from rsicd_embed.evaluation.embedding import Embedded, embed_examples, embed_texts
    from rsicd_embed.evaluation.evaluator import Evaluator
    from rsicd_embed.evaluation.metrics import (
        Bootstrap,
        class_ranks,
        confusion_matrix,
        hit_rates,
        intervals,
        rank_of_right,
        retrieval_metrics,
        topk_accuracy,
    )
    from rsicd_embed.evaluation.retrieval import CaptionPairs, Ranks, rank
    from rsicd_embed.evaluation.zeroshot import (
        ZeroShotOutcome,
        class_names,
        class_vectors,
        classify,
    )
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "rsicd_embed.evaluation.dataset": (
                "EvalSet",
                "Labelled",
                "labelled",
                "open_set",
                "with_captions",
            ),
            "rsicd_embed.evaluation.embedding": ("Embedded", "embed_examples", "embed_texts"),
            "rsicd_embed.evaluation.evaluator": ("Evaluator",),
            "rsicd_embed.evaluation.metrics": (
                "Bootstrap",
                "class_ranks",
                "confusion_matrix",
                "hit_rates",
                "intervals",
                "rank_of_right",
                "retrieval_metrics",
                "topk_accuracy",
            ),
            "rsicd_embed.evaluation.retrieval": ("CaptionPairs", "Ranks", "rank"),
            "rsicd_embed.evaluation.zeroshot": (
                "ZeroShotOutcome",
                "class_names",
                "class_vectors",
                "classify",
            ),
        },
    )

__all__ = [
    "Bootstrap",
    "CaptionPairs",
    "Embedded",
    "EvalSet",
    "Evaluator",
    "Labelled",
    "Ranks",
    "ZeroShotOutcome",
    "class_names",
    "class_ranks",
    "class_vectors",
    "classify",
    "confusion_matrix",
    "embed_examples",
    "embed_texts",
    "hit_rates",
    "intervals",
    "labelled",
    "open_set",
    "rank",
    "rank_of_right",
    "retrieval_metrics",
    "topk_accuracy",
    "with_captions",
]
