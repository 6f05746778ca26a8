# SPDX-License-Identifier: Apache-2.0
"""``asap2 trace [GUEST [CMD…]]``."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import complete, typer
from asap2.cli.options import AsJson, MostPackets, MostSeconds, PacketFilter
from asap2.errors import UsageError

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def trace(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GUEST [CMD…]|PORT]",
            help="A command to run in a guest: only that guest's packets are shown.",
            complete=complete.places,
        ),
    ] = None,
    filter_: PacketFilter = None,
    count: MostPackets = None,
    seconds: MostSeconds = None,
    packet: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Do not trace: say what would happen to this frame at PORT. Nothing is sent."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what each rule matches on.")] = False,
    as_json: AsJson = False,
) -> int:
    """Show each packet's way through the lab, step by step, with times, and why it was in software.

    `asap2 trace vm1 'ping -c1 10.57.0.2'` runs the command in a guest meanwhile; `asap2 trace --filter 'tcp port 80'`
    goes on until Ctrl-C. `asap2 trace --packet HEX vm1` says what would happen to a packet that vm1 sent, by the rules
    that there are now. Tracing costs nothing while no trace runs."""
    from asap2.cli.root import need_root
    from asap2.cli.tracing import Asked, ask, run

    need_root("asap2 trace")
    if packet is not None:
        if not words or len(words) > 1 or filter_ or count or seconds:
            raise UsageError("--packet HEX wants one PORT, as vm1 or hv1/eth0, and nothing else but -v and --json")
        ask(words[0], packet, verbose=verbose, as_json=as_json)
        return 0
    guest, command = (words[0], tuple(words[1:])) if words else (None, ())
    return run(Asked(guest, command, filter_, count, seconds, verbose, as_json))


command = typer.get_command(app)
