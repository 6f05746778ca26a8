# SPDX-License-Identifier: Apache-2.0
"""Options that many verbs have."""

from __future__ import annotations

from typing import Annotated

from asap2.cli import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON (docs/json.md).")]

PacketFilter = Annotated[
    str | None, typer.Option("--filter", metavar="FILTER", help="Only packets that pcap-filter(7) describes so.")
]
MostPackets = Annotated[int | None, typer.Option(min=1, metavar="N", help="End after N packets.")]
MostSeconds = Annotated[float | None, typer.Option(min=0.1, metavar="S", help="End after S seconds.")]
