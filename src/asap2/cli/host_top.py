# SPDX-License-Identifier: Apache-2.0
"""``asap2 host top [--batch N] [--flows] [--sort COLUMN] [--filter WORDS] [--interval SECONDS] [--json]``."""

from __future__ import annotations

from asap2.cli import typer
from asap2.cli.top_words import AsJson, Batch, Filter, Flows, Interval, Reverse, Sort

app = typer.Typer()


@app.command()
def top(
    batch: Batch = None,
    flows: Flows = False,
    sort: Sort = None,
    reverse: Reverse = False,
    words: Filter = "",
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> int:
    """Show ports and flows, their rates, and what of them is in hardware, until interrupted.

    On a terminal the keys are shown below the table. In a pipe each round is printed as plain text.
    """
    from asap2.cli.root import need_root
    from asap2.cli.top_words import show
    from asap2.live import host_collector

    need_root("asap2 host")
    return show("host-top", host_collector, batch, flows, sort, reverse, words, interval, as_json)


command = typer.get_command(app)
