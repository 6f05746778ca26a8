# SPDX-License-Identifier: Apache-2.0
"""``asap2 host capture FILE``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from asap2.cli import typer
from asap2.cli.root import need_root

app = typer.Typer()


@app.command()
def capture(file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")]) -> None:
    """Write this host's offload state, without secrets, to a file that other commands read with --from."""
    need_root("asap2 host")
    from asap2.host.capture import write
    from asap2.host.explain.flow import parse
    from asap2.host.explain.ovn import traced
    from asap2.host.explain.probe import not_offloaded, tried
    from asap2.host.observe import observe
    from asap2.host.trial import attempt_all
    from asap2.output import say

    host = observe(full=True, connections="each")
    host = traced(host, map(parse, host.openvswitch.datapath_flows))
    host = tried(host, not_offloaded(host.openvswitch.datapath_flows))
    write(dataclasses.replace(host, trials=attempt_all(host, host.pfs)), file)
    say(f"wrote {file}", file=sys.stderr)


command = typer.get_command(app)
