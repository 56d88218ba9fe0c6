"""`rsicd-embed label` and `duplicates`: columns computed for all rows of a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rsicd_embed.cli.base import (
    json_option,
    model_option,
    note,
    print_json,
    show,
    store_option,
    warn,
)
from rsicd_embed.cli.terminal_text import counted

if TYPE_CHECKING:
    from rsicd_embed.curation.labels import Labelling

_MOST_GROUPS = 20
_FEW_EXAMPLES = 5  # per class; with fewer, a measured accuracy means little

_overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the values of an existing column."
)


@click.command()
@store_option
@click.option(
    "--classes",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Text file with one class per line, for zero-shot labels.",
)
@click.option(
    "--examples",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV file with the columns id and label, for labels learnt from these rows.",
)
@click.option("--column", default="label", show_default=True, help="Column to write.")
@click.option(
    "--prompts",
    help="Prompt for --classes: an ensemble (aerial, photograph), or a template with {category}.",
)
@click.option("--where", metavar="SQL", help="Only rows that match this SQL condition.")
@_overwrite_option
@click.option("--dry-run", is_flag=True, help="Report the labels without writing them.")
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Random seed of the cross-validation.",
)
@model_option("the model of the store")
@json_option
def label(
    store_uri: str,
    classes: Path | None,
    examples: Path | None,
    column: str,
    prompts: str | None,
    where: str | None,
    overwrite: bool,
    dry_run: bool,
    seed: int,
    model: str | None,
    as_json: bool,
) -> None:
    """Write a label and its probability for each row.

    With --classes, a row gets the class whose prompt it is most similar to. With --examples, a
    logistic regression on the vectors is fitted to these rows; its accuracy and the calibration of
    its probabilities are measured on examples that were held out. The columns are COLUMN and
    COLUMN_probability, written in steps of up to 200,000 rows; other commands can write to the
    store in between. Rows that were corrected on the search page (COLUMN_corrected) keep their
    labels, and are examples as well.
    """
    if (classes is None) == (examples is None):
        raise click.UsageError("expected either --classes FILE or --examples FILE")
    if examples is not None and (prompts or model):
        raise click.UsageError("expected --classes with --prompts and --model, found --examples")
    import rsicd_embed
    from rsicd_embed.cli.search_command import load_model_of
    from rsicd_embed.curation import labels
    from rsicd_embed.datasets.prompts import prompt_templates

    names = None if classes is None else labels.read_classes(classes)
    labelled_ids = None if examples is None else labels.read_examples(examples)
    with rsicd_embed.open_store(store_uri) as store:
        if names is not None:
            result = labels.label_zero_shot(
                store,
                load_model_of(store, store_uri, model),
                names,
                column=column,
                prompts=prompt_templates(prompts),
                where=where,
                overwrite=overwrite,
                dry_run=dry_run,
            )
        else:
            assert labelled_ids is not None
            result = labels.label_few_shot(
                store,
                labelled_ids,
                column=column,
                where=where,
                overwrite=overwrite,
                dry_run=dry_run,
                seed=seed,
            )
    if labelled_ids is not None and len(labelled_ids) < _FEW_EXAMPLES * len(result.classes):
        warn(
            f"{len(labelled_ids)} examples of {len(result.classes)} classes: the measured accuracy "
            "is uncertain"
        )
    if result.left_out:
        warn(
            f"classes with a single example or corrected row, which no other row gets: "
            f"{', '.join(result.left_out)}; add examples"
        )
    _report(result, dry_run, as_json)


def _report(result: Labelling, dry_run: bool, as_json: bool) -> None:
    validated = result.validated
    if as_json:
        scores = None
        if validated is not None:
            scores = {
                "accuracy": validated.accuracy,
                "calibration_error": validated.calibration_error,
                "folds": validated.folds,
                "c": validated.c,
            }
        print_json(
            {"labelled": result.labelled, "classes": result.classes, "column": result.column}
            | {"counts": result.counts, "corrected": result.corrected}
            | {"left_out": result.left_out, "validation": scores, "dry_run": dry_run}
        )
        return
    for name, count in result.counts.items():
        show(f"{count:>8}  {name}")
    if validated is not None:
        show(
            f"accuracy {validated.accuracy:.1%} on held-out examples ({validated.folds} folds), "
            f"calibration error {validated.calibration_error:.1%}"
        )
    if result.corrected:
        show(f"{counted(result.corrected, 'corrected row')} kept as they are")
    total = sum(result.counts.values())
    verb = "would label" if dry_run else "labelled"
    show(f"{verb} {counted(total, 'row')} in column {result.column}")


@click.command()
@store_option
@click.option(
    "--threshold",
    default=0.97,
    show_default=True,
    help="Minimum cosine similarity of duplicates, from -1 to 1.",
)
@click.option("--where", metavar="SQL", help="Only rows that match this SQL condition.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the rows of all groups to a .csv or .json file.",
)
@click.option(
    "--write",
    "column",
    metavar="COLUMN",
    help="Write the id of a group's first row to this column.",
)
@_overwrite_option
@json_option
def duplicates(
    store_uri: str,
    threshold: float,
    where: str | None,
    output: Path | None,
    column: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Group near-duplicate images.

    The first row of a group has the most pixels. Nothing is deleted; with --write duplicate_of,
    this deletes all rows but the first of each group:

    \b
    rsicd-embed store delete --where "duplicate_of IS NOT NULL" --store lancedb:./tiles
    """
    import pyarrow as pa

    import rsicd_embed
    from rsicd_embed.cli.progress import image_progress
    from rsicd_embed.curation import near_duplicates
    from rsicd_embed.curation.column_update import require_new_columns
    from rsicd_embed.query import generated_files, table_files

    kind = None if output is None else output.suffix.lower().removeprefix(".")
    if output is not None and kind not in ("csv", "json"):
        raise click.UsageError(f"expected an output named *.csv or *.json, found {output}")
    if output is not None:
        generated_files.require_replaceable(output, str(kind), force=None)
    with (
        rsicd_embed.open_store(store_uri) as store,
        image_progress("compare", len(store), "rows") as advance,
    ):
        if column is not None:
            fields = pa.schema([(column, pa.string())])
            require_new_columns(store, fields, overwrite=overwrite)
        groups = near_duplicates.find_duplicates(store, threshold, where=where, progress=advance)
        if column is not None:
            near_duplicates.write_duplicates(
                store, groups, column, where=where, overwrite=overwrite
            )
    extra = sum(len(group.ids) - 1 for group in groups)
    if output is not None:
        listed = [
            {
                "group": number,
                "id": id_,
                "duplicate_of": None if id_ == group.ids[0] else group.ids[0],
            }
            for number, group in enumerate(groups, start=1)
            for id_ in group.ids
        ]
        names = {"group": pa.int64(), "id": pa.string(), "duplicate_of": pa.string()}
        table = pa.Table.from_pylist(listed, pa.schema(list(names.items())))
        table_files.save(table.to_batches(), table.schema, kind, output)  # type: ignore[arg-type]
    if as_json:
        print_json(
            {"groups": [{"ids": group.ids, "similarity": group.similarity} for group in groups]}
            | {"threshold": threshold, "duplicates": extra, "column": column}
        )
        return
    for group in groups[:_MOST_GROUPS]:
        show(f"{len(group.ids):>5}  {group.similarity:+.4f}  {'  '.join(group.ids[:5])}")
    if len(groups) > _MOST_GROUPS:
        note(f"{len(groups) - _MOST_GROUPS} more groups; -o FILE or --json lists all")
    show(f"{counted(len(groups), 'group')} with {counted(extra, 'duplicate')}")
