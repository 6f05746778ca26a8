# SPDX-License-Identifier: Apache-2.0
"""An eSwitch in legacy mode without a kernel: the driver's state on the reference eSwitch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asap2.nic import eswitch, legacy
from asap2.nic.eswitch import End
from asap2.nic.function import LinkState, Nic, Pf, Vf
from asap2.nic.port_ids import pf_port, vf_port, wire_port
from asap2.nic.silicon.events import Dropped, Matched, Sent
from asap2.nic.silicon.reference import ReferenceSwitch
from tests.unit.nic.backend import nic

PF_MAC = bytes.fromhex("ec0d9a000000")
BROADCAST = b"\xff" * 6
MULTICAST = bytes.fromhex("01005e000001")
STRANGER = bytes.fromhex("0200000000ee")
NAMES = {pf_port(0): "pf", wire_port(0): "wire", **{vf_port(0, n): f"vf{n}" for n in range(8)}}
PORTS = {name: port for port, name in NAMES.items()}


def mac(vf: int) -> bytes:
    """The address of a VF's netdev."""
    return bytes.fromhex("020000000100")[:5] + bytes([vf])


def frame(dst: bytes, src: bytes, *tags: int, tpid: int = 0x8100) -> bytes:
    """An IPv4 frame with 802.1Q tags of these TCIs, the outer one with *tpid*."""
    kinds = [tpid, *[0x8100] * len(tags)]
    shim = b"".join(kind.to_bytes(2, "big") + tci.to_bytes(2, "big") for kind, tci in zip(kinds, tags, strict=False))
    return dst + src + shim + b"\x08\x00" + bytes(46)


def plan(switch: legacy.Switch) -> dict[legacy.Key, legacy.Planned]:
    """Every rule of the eSwitch."""
    found: dict[legacy.Key, legacy.Planned] = {}
    for block, origin in legacy.blocks(switch).items():
        found |= legacy.rules(block, origin)
    return found


@dataclass
class Lab:
    """One PF with VFs whose attributes a test sets; :meth:`send` says who gets a frame, and what it is then."""

    vfs: int = 3
    model: str = "ConnectX-5"
    cable: bool = True
    promiscuous: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.nic: Nic = nic(self.model)
        self.pf: Pf = self.nic.pfs[0]
        self.pf.mac = PF_MAC
        self.pf.vfs = [Vf(self.pf, index) for index in range(self.vfs)]
        self.macs = {index: mac(index) for index in range(self.vfs)}
        self.tallies: dict[tuple[int, str], int] = {}

    def vf(self, index: int) -> Vf:
        return self.pf.vfs[index]

    def ends(self) -> Mapping[str, End]:
        ends = {"pf0": End(1, PF_MAC), "p0": End(2, carrier=self.cable)}
        for index, address in self.macs.items():
            ends[f"pf0vf{index}"] = End(10 + index, address, index in self.promiscuous)
        return ends

    def switch(self) -> legacy.Switch | None:
        return eswitch.legacy_switch(self.pf, self.ends())

    def send(self, source: str, what: bytes) -> dict[str, bytes]:
        """Who receives *what*, sent by *source*; the counters of VFs go to ``tallies``."""
        silicon, switch = ReferenceSwitch(upcall=False), self.switch()
        planned = plan(switch) if switch else {}
        handles = {silicon.add(legacy.rule(key, one)): one for key, one in planned.items()}
        for port in eswitch.ports(self.pf, self.ends(), switch).values():
            silicon.set_port(port)
        got: dict[str, bytes] = {}
        for event in silicon.process(what, PORTS[source]):
            match event:
                case Sent(to, sent):
                    assert NAMES[to] not in got, "twice"
                    got[NAMES[to]] = sent
                case Matched(handle):
                    for counter, vfs in handles[handle].tallies:
                        for vf in vfs:
                            self.tallies[vf, counter] = self.tallies.get((vf, counter), 0) + 1
                case Dropped():
                    pass
                case _:
                    raise AssertionError(event)
        return got


__all__ = ["BROADCAST", "MULTICAST", "PF_MAC", "STRANGER", "Lab", "LinkState", "frame", "mac"]
