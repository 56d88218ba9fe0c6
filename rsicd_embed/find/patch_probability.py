"""How likely a patch shows a text rather than something else: CLIP's zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# What most of the land in overhead pictures is; a patch that shows none of it is like none of them.
GENERAL = (
    "bare land",
    "farmland",
    "a forest",
    "a meadow",
    "water",
    "buildings",
    "a road",
)
# Where a model does not tell its own: at which CLIP's training clips it (Radford et al. 2021, 2.5).
LOGIT_SCALE = 100.0


def against(text: str) -> tuple[str, ...]:
    """What a text is compared with unless told: those of `GENERAL` that share no word with it.

    Example:
        >>> against("Buildings near a road")
        ('bare land', 'farmland', 'a forest', 'a meadow', 'water')
    """
    words = set(text.casefold().split()) - {"a"}
    return tuple(one for one in GENERAL if not words & set(one.split()))


def logit_scale(embedder: object) -> float:
    """What the model multiplies cosines by before a softmax; `LOGIT_SCALE` if it does not say."""
    return float(getattr(embedder, "logit_scale", LOGIT_SCALE))


def probabilities(similarities: np.ndarray, scale: float) -> np.ndarray:
    """Softmax over texts, of which the first is the one in question.

    Args:
        similarities: float (n, texts): cosines of n patches with each text.
        scale: what they are multiplied by.

    Returns:
        float64 (n,) in [0, 1]: how likely the first text is, if one of them is right (Radford et
        al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", 3.1).

    Example:
        >>> probabilities(np.array([[0.3, 0.3], [0.3, 0.2]]), 100.0).round(5).tolist()
        [0.5, 0.99995]
    """
    logits = scale * np.asarray(similarities, np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = weights[:, 0] / weights.sum(axis=1)
    return found


def texts(text: str, others: Sequence[str] | None) -> tuple[str, ...]:
    """The text in question, then what it is compared with; `against(text)` for None."""
    return (text, *(against(text) if others is None else dict.fromkeys(others)))
