"""Class names as data sets write them → words that a person, and CLIP, would use."""

from __future__ import annotations

import re

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


def readable(label: str) -> str:
    """`denseresidential` → `dense residential area`; `GolfCourse` → `golf course`."""
    key = re.sub(r"[\W_]", "", label).lower()
    if key in _READABLE:
        return _READABLE[key]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label)
    return " ".join(re.sub(r"[\W_]+", " ", words).lower().split())
