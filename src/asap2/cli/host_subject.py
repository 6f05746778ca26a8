# SPDX-License-Identifier: Apache-2.0
"""The subject of a verb of ``asap2 host``: this machine or a capture, and a selection of its PFs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from asap2.cli import typer
from asap2.cli.complete import pfs
from asap2.cli.options import AsJson as AsJson
from asap2.cli.root import need_root
from asap2.host.inventory import Host, Pf
from asap2.host.select import choose

Pfs = Annotated[
    list[str] | None,
    typer.Argument(metavar="PF", help="Network devices or PCI addresses (default: all).", complete=pfs),
]
From = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="Read a file written by `asap2 host capture` instead of this host."),
]


def subject(
    file: Path | None, names: list[str] | None, *, connections: Literal["count"] | None = None
) -> tuple[Host, tuple[Pf, ...]]:
    """This host, with or without the number of its connections, or the host in the capture *file*; and those of its PFs
    that *names* selects."""
    if file is not None:
        from asap2.host.capture import read

        host = read(file)
    else:
        need_root("asap2 host")
        from asap2.host.observe import observe

        host = observe(connections=connections)
    return host, choose(host, names or ())
