# SPDX-License-Identifier: Apache-2.0
"""``asap2 view [--listen ADDRESS] [--port N]``."""

from __future__ import annotations

from asap2.cli import typer
from asap2.cli.view_server import PORT, Listen, Port, serve

app = typer.Typer()


@app.command()
def view(listen: Listen = "127.0.0.1", port: Port = PORT) -> None:
    """Show the lab as a live picture in a browser: nodes, NICs, guests, cables, and what passes in hardware and in
    software."""
    from asap2.cli.root import need_root
    from asap2.lab.layout import layout
    from asap2.live import lab_collector

    need_root("asap2 view")
    serve(lambda: lab_collector(layout()), listen, port)


command = typer.get_command(app)
