"""`rsicd-embed find`: the patches of an image that match a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    SourcePath,
    json_option,
    model_option,
    note,
    print_json,
    require_text,
    show,
    warn,
)

if TYPE_CHECKING:
    from rsicd_embed.embedder.base import Embedder
    from rsicd_embed.find.finding import Finding, Question
    from rsicd_embed.find.heat_raster import PicturePlace
    from rsicd_embed.images import Picture

# From this many patches on, compiling the model pays off.
_MANY_PATCHES = 500


@click.command()
@click.argument("text")
@click.argument("image", type=SourcePath())
@click.option(
    "--patch",
    "sides",
    multiple=True,
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Side of the square patches; repeatable, for several scales.  "
    "[default: a quarter and a half of the shorter side, but 32 to 4 times the model's input]",
)
@click.option(
    "--overlap",
    default=0.5,
    show_default=True,
    help="Overlap of neighbouring patches, as a fraction from 0 to 0.9.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="TEXT",
    help="Alternative text for the probabilities; repeatable.  [default: common land cover]",
)
@model_option("the bundled model")
@click.option(
    "-k", "k", default=10, show_default=True, type=click.IntRange(1), help="Number of patches."
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw a heat map over the image and frame up to three of the best patches, without "
    "those centred in a better one; .png, .jpg or .webp. For a georeferenced image, .tif has the "
    "map's values as GeoTIFF.",
)
@json_option
def find(
    text: str,
    image: str | Path,
    sides: tuple[int, ...],
    overlap: float,
    against: tuple[str, ...],
    model: str | None,
    k: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find TEXT in one IMAGE and rank its patches.

    The score of a patch is its cosine similarity with TEXT, as in search. Its probability is the
    model's estimate that the patch shows TEXT rather than one of the alternatives (--against).

    The image must fit in memory, at three bytes per pixel, and have at most 178,956,970 pixels; cut
    larger ones into tiles first. Patches are cut and embedded in batches.
    """
    from rsicd_embed.embedder.base import word_warnings
    from rsicd_embed.find import heat_raster, heatmap
    from rsicd_embed.find.finding import Question

    suffixes = (*heatmap.SUFFIXES, *heat_raster.SUFFIXES)
    if output is not None and output.suffix.lower() not in suffixes:
        raise click.UsageError(
            f"expected an output named *{' or *'.join(suffixes)}, found {output}"
        )
    local = image if isinstance(image, Path) and image.exists() else None
    if output is not None and output.exists() and local and output.samefile(local):
        raise click.UsageError(f"expected an output other than the image, found {output}")
    for query_text in (text, *against):
        require_text(query_text)
    question = Question(text, against or None, sides or None, overlap)
    place = None
    if output is not None and output.suffix.lower() in heat_raster.SUFFIXES:
        place = _place(image)
        heat_raster.require_own_raster(output)
    picture, embedder, finding = _find(image, question, model)
    warnings = word_warnings(embedder, (text, *against))
    for line in warnings:
        warn(line)
    if place is not None and output is not None:
        heat_raster.save_geotiff(finding, place, output, orientation=picture.orientation)
    elif output is not None:
        heatmap.save(picture.image, finding, output)
    if as_json:
        print_json(
            {
                "query": text,
                "image": str(image),
                "width": finding.size[0],
                "height": finding.size[1],
                "model": embedder.name,
                "against": list(finding.texts[1:]),
                "logit_scale": finding.logit_scale,
                "logit_bias": finding.logit_bias,
                "count": len(finding.boxes),
                "patches": finding.best(k),
                "warnings": warnings,
            }
        )
        return
    for patch in finding.best(k):
        left, top, right, bottom = patch["box"]
        show(
            f"{patch['rank']:>3}  {patch['score']:+.4f}  {patch['probability']:>6.1%}  "
            f"{left},{top} – {right},{bottom}"
        )
    note(_summary(finding))
    if output is not None:
        note(f"map: {output}")


def _place(path: str | Path) -> PicturePlace:
    from rsicd_embed.errors import ImageError
    from rsicd_embed.find.heat_raster import PicturePlace

    try:
        return PicturePlace.of(str(path))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _find(
    path: str | Path, question: Question, model: str | None
) -> tuple[Picture, Embedder, Finding]:
    """Returns the image, the model, and the result."""
    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.embedder.loading import load_for_a_query
    from rsicd_embed.errors import ImageError
    from rsicd_embed.find import finding
    from rsicd_embed.images import read_picture

    try:
        picture = read_picture(path)
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    embedder = load_for_a_query(model)
    count = len(finding.cut(picture.image, question, embedder))
    if count >= _MANY_PATCHES:
        embedder = rsicd_embed.load_embedder(model)
    with image_progress("find", count, "patches") as advance:
        result = finding.find(picture.image, question, embedder, progress=advance)
    return picture, embedder, result


def _summary(finding: Finding) -> str:
    """`58 patches (64 and 128 px) of an image of 256×256, ranked by cosine; …`."""
    sides = sorted({max(r - left, b - top) for left, top, r, b in finding.boxes.tolist()})
    patches = f"{len(finding.boxes)} patch{'es' * (len(finding.boxes) > 1)}"
    width, height = finding.size
    summary = (
        f"{patches} ({' and '.join(map(str, sides))} px) of an image of {width}×{height}, "
        "ranked by cosine"
    )
    others = ", ".join(finding.texts[1:])
    return f"{summary}; probabilities are against: {others}" if others else summary
