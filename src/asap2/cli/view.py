# SPDX-License-Identifier: Apache-2.0
"""``asap2 view [--trace FILTER|--trace-file FILE] [--listen ADDRESS] [--port N]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from asap2.cli import typer
from asap2.cli.view_server import PORT, Listen, Port, serve
from asap2.errors import UsageError

if TYPE_CHECKING:
    from asap2.view.packets import Packets

app = typer.Typer()


@app.command()
def view(
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FILTER",
            help="Also show the way of each packet that pcap-filter(7) describes so, while a browser is open.",
        ),
    ] = None,
    trace_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also show the ways that `asap2 trace --json` has written.")
    ] = None,
    listen: Listen = "127.0.0.1",
    port: Port = PORT,
) -> None:
    """Show the lab as a live picture in a browser: nodes, NICs, guests, cables, and what passes in hardware and in
    software. With --trace or --trace-file, also the ways of single packets."""
    from asap2.cli.root import need_root
    from asap2.lab.layout import layout
    from asap2.live import lab_collector

    need_root("asap2 view")
    if trace is not None and trace_file is not None:
        raise UsageError("--trace and --trace-file cannot be used together")
    serve(lambda every: lab_collector(layout(), flows_every=every), listen, port, lambda: _packets(trace, trace_file))


def _packets(trace: str | None, file: Path | None) -> Packets | None:
    """What the options ask for. UsageError."""
    from asap2.lab.layout import layout
    from asap2.trace.filter import Filter
    from asap2.trace.shown import Traced, of_file

    if file is not None:
        return of_file(file)
    if trace is None:
        return None
    Filter(trace)  # for its error
    return Traced(layout(), trace)


command = typer.get_command(app)
