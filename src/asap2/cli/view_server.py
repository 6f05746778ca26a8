# SPDX-License-Identifier: Apache-2.0
"""What ``asap2 view`` and ``asap2 host view`` have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.live import Collector

if TYPE_CHECKING:
    from asap2.view.packets import Packets

PORT = 9418
Listen = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Address to listen on. Elsewhere than on loopback a browser needs the token in the URL that is printed.",
    ),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="TCP port to listen on; 0 for any that is free.")]


def serve(
    source: Callable[[float], Collector], listen: str, port: int, packets: Callable[[], Packets | None] = lambda: None
) -> None:
    """Serve the picture of what the collector sees that *source* gives, who is told how many seconds lie between two
    readings of flows, and what *packets* gives, until Ctrl-C."""
    from asap2 import extras
    from asap2.output import say
    from asap2.view.access import access

    extras.need("view")
    allowed = access(listen)
    from asap2.view.sampler import FLOWS_EVERY
    from asap2.view.server import ViewServer, check_built, run

    check_built()
    run(
        ViewServer(source(FLOWS_EVERY), allowed, packets=packets()),
        port,
        lambda url: say(f"open {url} in a browser; Ctrl-C ends it"),
    )
