"""`rsicd-embed find`: where in a picture is what a text says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rsicd_embed.cli.base import json_option, model_option, note, print_json, show, warn

if TYPE_CHECKING:
    from PIL import Image

    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.find.finding import Finding, Question

# From here on, compiling the model takes less time than doing without.
_MANY_PATCHES = 500


@click.command()
@click.argument("text")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--patch",
    "sides",
    multiple=True,
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Side of the patches; repeatable, for several scales.  "
    "[default: a quarter and a half of the shorter side, 32 to 4 times what the model sees]",
)
@click.option(
    "--overlap",
    default=0.5,
    show_default=True,
    help="The part of a patch that its neighbour has too, from 0 to 0.9.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="TEXT",
    help="What a patch may show instead; repeatable.  [default: general kinds of land cover]",
)
@model_option("the bundled model")
@click.option("-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Patches.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw a map of the probabilities over the picture into this .png, .jpg or .webp, with up "
    "to three of the best patches framed: those that are not centred in a better one.",
)
@json_option
def find(
    text: str,
    image: Path,
    sides: tuple[int, ...],
    overlap: float,
    against: tuple[str, ...],
    model: str | None,
    k: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find TEXT in one IMAGE: its patches, ranked.

    The score of a patch is its cosine with TEXT, as in search. Its probability says how likely it
    shows TEXT rather than one of the texts it is compared with (--against), in the model's opinion.

    The picture is held in memory, three bytes a pixel, up to 178,956,970 pixels; larger ones are
    refused, and are to be cut into tiles first. Patches are cut and embedded some at a time.
    """
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.find import heatmap
    from rsicd_embed.find.finding import Question

    if output is not None and output.suffix.lower() not in heatmap.SUFFIXES:
        raise click.UsageError(
            f"expected an output named *{' or *'.join(heatmap.SUFFIXES)}: {output}"
        )
    if output is not None and output.exists() and image.exists() and output.samefile(image):
        raise click.UsageError(f"expected another file for the map than the image: {output}")
    for one in (text, *against):
        if not one.strip():
            raise click.UsageError("expected a text, found an empty one")
        if one.encode("utf-8", "replace").decode() != one:
            raise click.UsageError(f"expected a text in UTF-8, found {one!r}")
    question = Question(text, against or None, sides or None, overlap)
    picture, embedder, found = _found(image, question, model)
    warnings = word_warnings(embedder, (text, *against))
    for line in warnings:
        warn(line)
    if output is not None:
        heatmap.save(picture, found, output)
    if as_json:
        print_json(_document(text, image, embedder.name, found, k) | {"warnings": warnings})
        return
    for patch in found.best(k):
        left, top, right, bottom = patch["box"]
        show(
            f"{patch['rank']:>3}  {patch['score']:+.4f}  {patch['probability']:>6.1%}  "
            f"{left},{top} – {right},{bottom}"
        )
    note(_summary(found))
    if output is not None:
        note(f"map: {output}")


def _found(
    path: Path, question: Question, model: str | None
) -> tuple[Image.Image, Embedder, Finding]:
    """The picture, the model that looked at it, and what it saw."""
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import ImageError
    from rsicd_embed.find import finding
    from rsicd_embed.images import read_rgb

    try:
        picture = read_rgb(path)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    embedder = load_for_a_query(model)
    count = len(finding.cut(picture, question, embedder))
    if count >= _MANY_PATCHES:
        embedder = rsicd_embed.load_embedder(model)
    with image_progress("find", count, "patches") as advance:
        return picture, embedder, finding.find(picture, question, embedder, progress=advance)


def _summary(found: Finding) -> str:
    """`58 patches (64 and 128 px) of a picture of 256×256, ranked by cosine; …`."""
    sides = sorted({max(r - left, b - top) for left, top, r, b in found.boxes.tolist()})
    patches = f"{len(found.boxes)} patch{'es' * (len(found.boxes) > 1)}"
    cut = f"{patches} ({' and '.join(map(str, sides))} px)"
    said = f"{cut} of a picture of {found.size[0]}×{found.size[1]}, ranked by cosine"
    others = ", ".join(found.texts[1:])
    return f"{said}; probabilities are against: {others}" if others else said


def _document(text: str, path: Path, model: str, found: Finding, k: int) -> dict[str, Any]:
    return {
        "query": text,
        "image": str(path),
        "width": found.size[0],
        "height": found.size[1],
        "model": model,
        "against": list(found.texts[1:]),
        "logit_scale": found.logit_scale,
        "count": len(found.boxes),
        "patches": found.best(k),
    }
