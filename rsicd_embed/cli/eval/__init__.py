"""`rsicd-embed eval`: how good a model is, by published protocols."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import Group
from rsicd_embed.cli.eval.eval_forgetting import forgetting
from rsicd_embed.cli.eval.eval_probe import probe
from rsicd_embed.cli.eval.eval_retrieval import retrieval
from rsicd_embed.cli.eval.eval_zeroshot import zeroshot


@click.group("eval", cls=Group)
def evaluation() -> None:
    """Measure how good a model is, on labelled or captioned images.

    Figures are fractions, with 95% intervals over the images. The protocol moves the score: compare
    only what was measured by one protocol on one split.
    """


for command in (zeroshot, retrieval, probe, forgetting):
    evaluation.add_command(command)
