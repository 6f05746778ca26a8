# SPDX-License-Identifier: Apache-2.0
"""``asap2 host view [--from FILE] [--listen ADDRESS] [--port N]``."""

from __future__ import annotations

from asap2.cli import typer
from asap2.cli.host_subject import From
from asap2.cli.view_server import PORT, Listen, Port, serve

app = typer.Typer()


@app.command()
def view(file: From = None, listen: Listen = "127.0.0.1", port: Port = PORT) -> None:
    """Show this host as a live picture in a browser: NICs, VFs, bridges, tunnels, and what passes in hardware and in
    software. With --from, show the moment of a capture."""
    from asap2.live import capture_snapshot, host_collector
    from asap2.live.still import Still

    if file is None:
        from asap2.cli.root import need_root

        need_root("asap2 host")
        serve(lambda every: host_collector(flows_every=every), listen, port)
    else:
        chosen = file
        serve(lambda _every: Still(capture_snapshot(chosen)), listen, port)


command = typer.get_command(app)
