# SPDX-License-Identifier: Apache-2.0
"""The capture file, as another library reads it."""

from __future__ import annotations

import io
from typing import Any

from pcapng import FileScanner
from pcapng import blocks as block_types

from asap2.trace.pcapng import INBOUND, OUTBOUND, Writer
from tests.unit.trace.frames import echo, tagged


def written() -> list[Any]:
    """The blocks of a file with two interfaces and three packets."""
    output = io.BytesIO()
    writer = Writer(output, "asap2 1.0")
    vf = writer.interface("vm1", "vm1 by VF enp3s0f0v0 of hv1")
    wire = writer.interface("hv1/nic0/p0", "the wire")
    now = 1_900_000_000_123_456_789
    writer.packet(vf, now, echo(8, 1), 98, OUTBOUND, "eSwitch: rule 5")
    writer.packet(wire, now + 1, tagged(echo(8, 1), 52)[:61], 102, OUTBOUND, "eSwitch: rule 5")
    writer.packet(vf, now + 2, echo(0, 1), 98, INBOUND, "slow path: µ")
    writer.statistics(vf, now + 3, "2 records were lost")
    writer.flush()
    assert writer.packets == 3
    output.seek(0)
    return list(FileScanner(output))


def test_another_library_reads_the_interfaces_and_packets() -> None:
    section, vf, wire, *packets, statistics = written()
    assert isinstance(section, block_types.SectionHeader)
    assert section.options["shb_userappl"] == "asap2 1.0"
    assert [one.options["if_name"] for one in (vf, wire)] == ["vm1", "hv1/nic0/p0"]
    assert [(one.link_type, one.snaplen) for one in (vf, wire)] == [(1, 0), (1, 0)]
    assert [packet.interface_id for packet in packets] == [0, 1, 0]
    assert [packet.packet_data for packet in packets] == [echo(8, 1), tagged(echo(8, 1), 52)[:61], echo(0, 1)]
    assert [packet.packet_len for packet in packets] == [98, 102, 98]
    assert [packet.options["opt_comment"] for packet in packets] == [*["eSwitch: rule 5"] * 2, "slow path: µ"]
    assert [packet.options["epb_flags"].inout for packet in packets] == ["outbound", "outbound", "inbound"]
    assert [round((packet.timestamp - 1_900_000_000) * 1e6) for packet in packets] == [123457] * 3
    assert statistics.options["isb_ifrecv"] == 2
    assert statistics.options["opt_comment"] == "2 records were lost"
