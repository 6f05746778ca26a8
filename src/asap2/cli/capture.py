# SPDX-License-Identifier: Apache-2.0
"""``asap2 capture -w FILE [PORT…]``."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import complete, typer
from asap2.cli.options import MostPackets, MostSeconds, PacketFilter

app = typer.Typer()


@app.command()
def capture(
    file: Annotated[str, typer.Option("--write", "-w", metavar="FILE", help="A pcapng file; - is standard output.")],
    ports: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PORT…]",
            help="Guests, nodes, or ports as hv1/eth0 and hv1/nic0/p0 (default: all ports of the lab).",
            complete=complete.places,
        ),
    ] = None,
    filter_: PacketFilter = None,
    count: MostPackets = None,
    seconds: MostSeconds = None,
    snap: Annotated[
        int, typer.Option(min=64, max=65535, metavar="N", help="Octets of each packet that are kept.")
    ] = 65535,
) -> None:
    """Capture packets at several ports of several nodes in one file, those that only the NIC sees included.

    Each packet has a comment: "eSwitch" if the NIC carries it, else "slow path", and the rule. Until Ctrl-C, --count or
    --seconds; `asap2 capture -w - | wireshark -k -i -` shows packets as they come."""
    from asap2.cli.capturing import Asked, run
    from asap2.cli.root import need_root

    need_root("asap2 capture")
    run(Asked(file, tuple(ports or ()), filter_, count, seconds, snap))


command = typer.get_command(app)
