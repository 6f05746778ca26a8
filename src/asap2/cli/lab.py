# SPDX-License-Identifier: Apache-2.0
"""``asap2 lab up TOPOLOGY | down | ls | topologies``."""

from __future__ import annotations

import sys
from typing import Annotated

from asap2.cli import complete, typer
from asap2.cli.options import AsJson
from asap2.lab.layout import MOST_NODES

app = typer.Typer(help="Nodes, NICs, cables and guests on this machine.", no_args_is_help=True)


@app.command()
def up(
    topology: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPOLOGY]",
            help="A file (docs/lab.md) or a name that `asap2 lab topologies` lists.",
            complete=complete.topologies,
        ),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_NODES, metavar="N", help="Instead: N nodes at a switch, with a guest on each."),
    ] = None,
) -> None:
    """Bring up a lab: of a file, of a topology that comes with asap2 (as two-nodes), or of N like nodes."""
    from asap2.cli.root import need_root
    from asap2.errors import UsageError
    from asap2.lab import gallery
    from asap2.lab.lab import Lab
    from asap2.progress import Progress

    if (topology is None) == (nodes is None):
        few = "one is needed" if topology is None else "only one can be given"
        raise UsageError(f"a TOPOLOGY or --nodes N: {few}; `asap2 lab topologies` lists topologies")
    need_root("asap2 lab up")
    wanted = gallery.rack(nodes) if nodes is not None else gallery.named(topology or "")
    with Progress() as progress:
        Lab(tell=progress.step).up(wanted)


@app.command()
def down() -> None:
    """Take the lab down, whatever state it is in. Nothing remains."""
    from asap2.cli.root import need_root
    from asap2.lab.lab import Lab
    from asap2.output import say

    need_root("asap2 lab down")
    if not Lab().down():
        say("no lab is up", file=sys.stderr)


@app.command()
def ls(as_json: AsJson = False) -> None:
    """List the labs on this machine, and the nodes, NICs, cables and guests of each; of one only, if it is named."""
    from asap2.answers import answer
    from asap2.cli.lab_tables import print_lab
    from asap2.cli.root import need_root
    from asap2.lab.labs import described
    from asap2.output import say

    need_root("asap2 lab ls")
    labs = described()
    if as_json:
        answer("lab-ls", {"labs": labs})
    elif not labs:
        say("no lab is up", file=sys.stderr)
    else:
        for number, lab in enumerate(labs):
            say() if number else None
            print_lab(lab)


@app.command(context_settings={"ignore_unknown_options": True})
def cable(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[END [END]] [delay T] [jitter T] [loss P] [rate R] [clear]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show cables, or make one bad while the lab runs: `asap2 lab cable hv1 hv2 delay 10ms loss 1% rate 1gbit`.

    An END is a port (hv1/nic0/p0), or as much of its name as is needed, or a switch. Values that are not given stay as
    they are; 0 takes one back, and clear all. Each direction has the delay, the loss and the rate."""
    from asap2.answers import answer
    from asap2.cli.cable_words import read
    from asap2.cli.lab_tables import cable_table
    from asap2.cli.root import need_root
    from asap2.lab.cables import cables
    from asap2.lab.lab import Lab
    from asap2.screen import Screen

    asked = read(words or [])
    need_root("asap2 lab cable")
    lab = Lab()
    if asked.ends:
        found = [lab.impair(asked.ends[0], asked.ends[1] if len(asked.ends) > 1 else None, asked.change)]
    else:
        found = [each.as_data() for each in cables(lab.layout)]
    if as_json:
        answer("lab-cable", {"cables": found})
    else:
        Screen(wrap=True).print(cable_table(found))


@app.command()
def topologies(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Print the file of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the topologies that come with asap2, or print one, as a file to start from."""
    from asap2.answers import answer
    from asap2.lab import gallery
    from asap2.output import say
    from asap2.screen import Screen, table

    if name is not None:
        text = gallery.text_of(name)
        answer("lab-topologies", {"name": name, "text": text}) if as_json else say(text, end="")
        return
    found = gallery.names()
    if as_json:
        answer("lab-topologies", {"topologies": [{"name": name, "about": about} for name, about in found.items()]})
        return
    shown = table("", "name", "what")
    for name, about in found.items():
        shown.add_row(name, about)
    Screen(wrap=True).print(shown)


command = typer.get_command(app)
