"""`rsicd-embed eval`: accuracy of a model, by published protocols."""

from __future__ import annotations

import click

from rsicd_embed.cli.base import Group
from rsicd_embed.cli.eval.eval_caption import caption
from rsicd_embed.cli.eval.eval_forgetting import forgetting
from rsicd_embed.cli.eval.eval_probe import probe
from rsicd_embed.cli.eval.eval_queries import queries
from rsicd_embed.cli.eval.eval_retrieval import retrieval
from rsicd_embed.cli.eval.eval_suite import suite
from rsicd_embed.cli.eval.eval_zeroshot import zeroshot


@click.group("eval", cls=Group)
def evaluation() -> None:
    """Evaluate a model on labelled or captioned images.

    Metrics are fractions, with 95% intervals over the images. Protocols affect the scores: only
    compare results of the same protocol on the same split.
    """


for command in (zeroshot, retrieval, probe, forgetting, queries, caption, suite):
    evaluation.add_command(command)
