"""Class names as data sets write them → words that a person, and CLIP, would use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_READABLE = {
    # RSICD
    "bareland": "bare land",
    "baseballfield": "baseball field",
    "center": "center building",
    "commercial": "commercial area",
    "denseresidential": "dense residential area",
    "industrial": "industrial area",
    "mediumresidential": "medium residential area",
    "parking": "parking lot",
    "playfields": "playing fields",
    "railwaystation": "railway station",
    "sparseresidential": "sparse residential area",
    "storagetanks": "storage tanks",
    # UC Merced
    "agricultural": "farmland",
    "baseballdiamond": "baseball diamond",
    "buildings": "buildings",
    "golfcourse": "golf course",
    "mobilehomepark": "mobile home park",
    "parkinglot": "parking lot",
    "tenniscourt": "tennis court",
}

# What CLIP-rsicd asked in its zero-shot evaluation.
PROMPT = "An aerial photograph of {category}"

# How a class name is made into a caption for training.
CAPTION_TEMPLATES = (
    "an aerial photograph of {category}",
    "a satellite image of {category}",
    "aerial view of {category}",
    "{category}",
)


def phrases(label: str) -> tuple[str, ...]:
    """`readable` and the synonyms of a class, if there are any: `port` → `port`, `a seaport`, ….

    Example:
        >>> phrases("TennisCourt")[:2]
        ('tennis court', 'tennis courts')
    """
    return (readable(label), *_synonyms().get(_key(label), ()))


@cache
def _synonyms() -> Mapping[str, tuple[str, ...]]:
    lines = Path(__file__).with_name("class_synonyms.txt").read_text(encoding="utf-8").splitlines()
    entries = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {key: tuple(words.split(", ")) for key, _, words in entries}


def _key(label: str) -> str:
    return re.sub(r"[\W_]", "", label).lower()


def readable(label: str) -> str:
    """`denseresidential` → `dense residential area`; `GolfCourse` → `golf course`."""
    key = _key(label)
    if key in _READABLE:
        return _READABLE[key]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[\W_]+", " ", words).lower().split())
