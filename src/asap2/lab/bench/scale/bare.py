# SPDX-License-Identifier: Apache-2.0
"""A NIC's silicon alone, between a sending and a receiving guest: no node, driver, daemon or Open vSwitch is there."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from asap2.lab.bench.paths import plain
from asap2.lab.bench.scale import table
from asap2.lab.execute import ip
from asap2.lab.layout import Layout
from asap2.namespaces import in_netns
from asap2.nic.silicon.pipeline import Deliver, Miss, Pipeline, Port, PortKind
from asap2.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount

IN, OUT = 1, 2
"""The silicon's ports: the sending guest's, and the receiving guest's."""


class Bare:
    """Three network namespaces of the lab at *place*, whose names begin with *name*; and ``bpf``, a directory for maps
    and programs."""

    def __init__(self, place: Layout, name: str) -> None:
        self.bpf = place.root / "bpf"
        self.bpf.mkdir()
        mount("bpffs", self.bpf, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=700")
        self.sender, self.silicon, self.receiver = (
            os.open(bundle / "net", os.O_RDONLY | os.O_CLOEXEC)
            for bundle in plain(place, f"{name}-a", f"{name}-silicon", f"{name}-b")
        )

    def wire(self, device: str) -> None:
        """Give each guest a *device*, whose other end the silicon has."""
        silicon = netns(self.silicon)
        for guest, far, mac in ((self.sender, "a", ""), (self.receiver, "b", f" address {table.DST_MAC.hex(':')}")):
            ip(
                netns(guest),
                f"link add name {device}{mac} type veth peer name {device}{far} netns {silicon}",
                f"link set dev {device} up",
            )
            ip(silicon, f"link set dev {device}{far} up")

    def ends(self, device: str) -> list[int]:
        """The interface indices of the silicon's ends of *device*: the sending and the receiving guest's."""
        return in_netns(self.silicon, lambda: [socket.if_nametoindex(device + far) for far in "ab"])

    def set_ports(self, pipeline: Pipeline, device: str) -> None:
        """Make the ends of *device* the ports :data:`IN` and :data:`OUT` of *pipeline*."""
        one, other = self.ends(device)
        pipeline.set_port(Port(IN, one, PortKind.VF, tables=(0,), miss=Miss.DROP))
        pipeline.set_port(Port(OUT, other, PortKind.VF, table.DST_MAC, Deliver.PEER, tables=(0,), miss=Miss.DROP))

    def attach(self, pipeline: Pipeline, device: str) -> None:
        """Have *pipeline* get the packets that come by *device*."""
        for ifindex in self.ends(device):
            pipeline.attach(ifindex, self.silicon)

    def close(self) -> None:
        """Let go of the namespaces; the lab's end ends them."""
        for fd in (self.sender, self.silicon, self.receiver):
            os.close(fd)


def netns(fd: int) -> Path:
    """A path of the network namespace that is open as *fd* in this process."""
    return Path(f"/proc/{os.getpid()}/fd/{fd}")
