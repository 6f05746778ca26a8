# SPDX-License-Identifier: Apache-2.0
"""The settings that steps change, each before and after. Pure functions.

A plan goes through states that nobody wants for themselves: VFs without drivers, no VFs at all, a device that is down.
What counts here is the first and the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from asap2.host.inventory import Host, Netdev, Pf
from asap2.host.setup.plan import find
from asap2.host.setup.steps import (
    AddIngress,
    AddPorts,
    CleanTc,
    DeletePorts,
    PortState,
    RestartSwitch,
    SetBridge,
    SetDrivers,
    SetEswitch,
    SetOption,
    SetParam,
    SetPorts,
    SetVfAttributes,
    SetVfs,
    Step,
)

ABSENT, PRESENT = "absent", "present"
NOT_SET = "not set"
VF_ATTRIBUTES = ("mac", "vlan", "qos", "spoofchk", "trust", "link_state", "rates")


@dataclass(frozen=True, slots=True)
class Change:
    """A setting: ``what`` it is, in a few words, and what it is ``before`` and ``after``."""

    what: str
    before: str
    after: str


def changes(now: Host, steps: Iterable[Step]) -> tuple[Change, ...]:
    """The settings that *steps* change on the host *now*, in order; those that end unchanged are left out."""
    found: dict[str, Change] = {}
    for step in steps:
        for one in _of(now, step):
            first = found.get(one.what, one)
            found[one.what] = Change(one.what, first.before, one.after)
    return tuple(one for one in found.values() if one.before != one.after)


def _of(now: Host, step: Step) -> Iterator[Change]:
    match step:
        case SetVfs() | SetDrivers() | SetEswitch() | SetParam() | SetVfAttributes():
            pf = now.pf(step.pf)
            if pf is not None:
                yield from _of_pf(pf, step)
        case SetPorts():
            for port in step.ports:
                yield from _of_port(now, port)
        case SetOption():
            have = now.openvswitch.option(step.key)
            what = f"Open_vSwitch other_config:{step.key}"
            yield Change(what, NOT_SET if have is None else have, NOT_SET if step.value is None else step.value)
        case RestartSwitch():
            yield Change(f"service {step.service}", "running", "restarted")
        case SetBridge():
            bridges = [one.name for one in now.openvswitch.bridges]
            yield Change(f"bridge {step.name}", _there(step.name in bridges), _there(step.there))
        case AddPorts():
            for name in (port.shown for port in step.ports):
                yield _in_bridge(now, step.bridge, name, True)
        case DeletePorts():
            for name in step.names:
                yield _in_bridge(now, step.bridge, name, False)
        case CleanTc():
            for name in step.devices:
                yield Change(f"{name} TC ingress of Open vSwitch", PRESENT, ABSENT)
        case AddIngress():
            for qdisc in step.qdiscs:
                there = now.qdisc(qdisc.netdev) is not None
                yield Change(f"{qdisc.netdev} {qdisc.kind} qdisc", _there(there), PRESENT)


def _of_pf(pf: Pf, step: SetVfs | SetDrivers | SetEswitch | SetParam | SetVfAttributes) -> Iterator[Change]:
    have = {vf.index: vf for vf in pf.vfs}
    match step:
        case SetVfs():
            yield Change(f"{pf.address} VFs", str(pf.num_vfs), str(step.count))
        case SetDrivers():
            for number, (driver, _) in enumerate(step.drivers):
                if number in have:
                    before = have[number].driver
                    yield Change(f"{pf.address} VF {number} driver", before or "none", driver or "none")
        case SetEswitch():
            words = f"{pf.address} eSwitch {step.attribute.replace('_', ' ')}"
            yield Change(words, str(getattr(pf.eswitch, step.attribute, None) or NOT_SET), step.word)
        case SetParam():
            yield Change(f"{pf.address} {step.name}", dict(pf.params).get(step.name, NOT_SET), step.word)
        case SetVfAttributes():
            for vf in step.vfs:
                for name in VF_ATTRIBUTES:
                    before = _word(getattr(have[vf.index], name)) if vf.index in have else ABSENT
                    words = f"{pf.address} VF {vf.index} {name.replace('_', ' ')}"
                    yield Change(words, before, _word(getattr(vf, name)))


def _of_port(now: Host, wanted: PortState) -> Iterator[Change]:
    pf = now.pf(wanted.port.pf)
    netdev: Netdev | None = find(now, pf, wanted.port) if pf else None
    for attribute, name, on, off in (
        ("name", "name", "", ""),
        ("offload", "hw-tc-offload", "on", "off"),
        ("mac", "MAC", "", ""),
        ("mtu", "MTU", "", ""),
        ("up", "link", "up", "down"),
    ):
        after = getattr(wanted, attribute)
        if after is None:
            continue
        before = getattr(netdev, "hw_tc_offload" if attribute == "offload" else attribute, None)
        words = [ABSENT if one is None else (on if one else off) if on else str(one) for one in (before, after)]
        yield Change(f"{wanted.port.shown} {name}", words[0], words[1])


def _in_bridge(now: Host, bridge: str, port: str, after: bool) -> Change:
    place = now.openvswitch.port_of(port)
    return Change(f"bridge {bridge} port {port}", _there(place is not None and place[0].name == bridge), _there(after))


def _there(there: bool) -> str:
    return PRESENT if there else ABSENT


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " to ".join(map(str, value)) if isinstance(value, tuple) else str(value)
