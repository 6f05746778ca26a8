# SPDX-License-Identifier: Apache-2.0
"""``asap2 host metrics [--port N] [--address ADDRESS] [--once] [--no-trial]``."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import typer
from asap2.cli.root import need_root

app = typer.Typer()
PORT = 9417


@app.command()
def metrics(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to listen on for Prometheus.")] = PORT,
    address: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    once: Annotated[
        bool, typer.Option("--once", help="Print the figures once and exit, for a file collector.")
    ] = False,
    trial: Annotated[
        bool, typer.Option(help="Try the rule of each new software flow, to get the NIC's answer.")
    ] = True,
) -> None:
    """Serve figures for Prometheus: flows in hardware and in software, by reason; packets of VFs and of the host."""
    need_root("asap2 host")
    from asap2.host.metrics import HostCollector, registry
    from asap2.output import say

    collected = registry(HostCollector(trial))
    if once:
        from prometheus_client.exposition import generate_latest

        say(generate_latest(collected).decode(), end="")
        return
    from asap2.host.exporter import serve

    where = f"[{address}]" if ":" in address else address
    serve(address, port, collected, lambda port: say(f"serving http://{where}:{port}/metrics"))


command = typer.get_command(app)
