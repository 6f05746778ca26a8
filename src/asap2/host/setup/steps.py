# SPDX-License-Identifier: Apache-2.0
"""The steps that a plan is made of: data, each with the commands by which a person would do the same.

:mod:`asap2.host.setup.hands` does them. A step that finds its work done already does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from asap2.host.inventory import Filter, Qdisc, Vf

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"


@dataclass(frozen=True, slots=True)
class PortRef:
    """A network device by what it is: of the PF at ``pf`` the uplink, or of its VF ``vf`` the representor or the VF's
    own. ``hint`` is its name now, or words for it while it has none."""

    pf: str
    kind: Literal["uplink", "representor", "vf"]
    vf: int = 0
    hint: str = ""

    @property
    def shown(self) -> str:
        """For a command line."""
        return self.hint or f"<{self.kind} of VF {self.vf} of {self.pf}>"


@dataclass(frozen=True, slots=True)
class PortState:
    """What a network device is to be; None is whatever it is. ``mac`` is given back as far as the driver lets."""

    port: PortRef
    name: str | None = None
    mac: str | None = None
    up: bool | None = None
    mtu: int | None = None
    offload: bool | None = None


@dataclass(frozen=True, slots=True)
class SetVfs:
    """Create *count* VFs, or remove them (0)."""

    pf: str
    count: int

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return (f"echo {self.count} > {DEVICES}/{self.pf}/sriov_numvfs",)


@dataclass(frozen=True, slots=True)
class SetDrivers:
    """Bind VFs to drivers: ``drivers`` are (driver, driver_override) by VF, None for unbound and for no override."""

    pf: str
    drivers: tuple[tuple[str | None, str | None], ...]
    driver: str

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        found = []
        for driver in dict.fromkeys(driver for driver, _ in self.drivers):
            vfs = " ".join(str(vf) for vf, (one, _) in enumerate(self.drivers) if one == driver)
            address = f"$(basename $(readlink {DEVICES}/{self.pf}/virtfn$v))"
            verb = f"{DRIVERS}/{driver}/bind" if driver else f"{DRIVERS}/{self.driver}/unbind"
            found.append(f"for v in {vfs}; do echo {address} > {verb}; done")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class SetEswitch:
    """Set the eSwitch's ``mode``, ``inline_mode`` or ``encap_mode``."""

    pf: str
    attribute: Literal["mode", "inline_mode", "encap_mode"]
    word: str

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return (f"devlink dev eswitch set pci/{self.pf} {self.attribute.replace('_', '-')} {self.word}",)


@dataclass(frozen=True, slots=True)
class SetParam:
    """Set a devlink parameter's runtime value."""

    pf: str
    name: str
    word: str

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return (f"devlink dev param set pci/{self.pf} name {self.name} value {self.word} cmode runtime",)


@dataclass(frozen=True, slots=True)
class SetPorts:
    """Bring network devices to their target states: first names, then features, MTU, up or down."""

    ports: tuple[PortState, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        found = []
        for one in self.ports:
            name = one.port.shown
            if one.name is not None and one.name != name:
                found.append(f"ip link set {name} name {one.name}")
                name = one.name
            if one.offload is not None:
                found.append(f"ethtool -K {name} hw-tc-offload {'on' if one.offload else 'off'}")
            if one.mac is not None:
                found.append(f"ip link set {name} address {one.mac}")
            if one.mtu is not None:
                found.append(f"ip link set {name} mtu {one.mtu}")
            if one.up is not None:
                found.append(f"ip link set {name} {'up' if one.up else 'down'}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class SetVfAttributes:
    """Give VFs the MAC, VLAN, rates, trust, spoof check and link state that ``vfs`` have."""

    pf: str
    netdev: str
    vfs: tuple[Vf, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return tuple(
            f"ip link set {self.netdev} vf {vf.index} mac {vf.mac} vlan {vf.vlan} trust {'on' if vf.trust else 'off'}"
            f" spoofchk {'on' if vf.spoofchk else 'off'} state {vf.link_state}"
            for vf in self.vfs
        )


@dataclass(frozen=True, slots=True)
class SetOption:
    """Set Open_vSwitch.other_config:KEY, or remove it (None)."""

    key: str
    value: str | None

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        if self.value is None:
            return (f"ovs-vsctl remove Open_vSwitch . other_config {self.key}",)
        return (f"ovs-vsctl set Open_vSwitch . other_config:{self.key}={self.value}",)


@dataclass(frozen=True, slots=True)
class RestartSwitch:
    """Restart Open vSwitch, so that it reads hw-offload and tc-policy."""

    service: str

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return (f"systemctl restart {self.service}",)


@dataclass(frozen=True, slots=True)
class SetBridge:
    """Create or remove a bridge."""

    name: str
    there: bool

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return (
            f"ovs-vsctl --may-exist add-br {self.name}" if self.there else f"ovs-vsctl --if-exists del-br {self.name}",
        )


@dataclass(frozen=True, slots=True)
class AddPorts:
    """Put network devices into a bridge."""

    bridge: str
    ports: tuple[PortRef, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return tuple(f"ovs-vsctl --may-exist add-port {self.bridge} {port.shown}" for port in self.ports)


@dataclass(frozen=True, slots=True)
class DeletePorts:
    """Remove network devices from a bridge."""

    bridge: str
    names: tuple[str, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return tuple(f"ovs-vsctl --if-exists del-port {self.bridge} {name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class CleanTc:
    """Take away what offloading left in TC: flows of Open vSwitch on ``devices``, and ingress qdiscs that are then
    empty, but for those on ``kept``, which were there before."""

    devices: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        gone = [f"tc qdisc del dev {name} ingress" for name in self.devices if name not in self.kept]
        return (*gone, *(f"tc filter del dev {name} ingress" for name in self.kept if name in self.devices))


@dataclass(frozen=True, slots=True)
class AddIngress:
    """Give devices their ingress or clsact qdiscs back, and the filters on them that were not Open vSwitch's."""

    qdiscs: tuple[Qdisc, ...]
    filters: tuple[Filter, ...] = ()

    @property
    def commands(self) -> tuple[str, ...]:
        """As a person would."""
        return (
            *(f"tc qdisc add dev {one.netdev} {one.kind}" for one in self.qdiscs),
            *(
                f"tc filter add dev {one.netdev} {'egress' if one.egress else 'ingress'} prio {one.prio} {one.kind} …"
                for one in self.filters
            ),
        )


Step: TypeAlias = (
    SetVfs
    | SetDrivers
    | SetEswitch
    | SetParam
    | SetPorts
    | SetVfAttributes
    | SetOption
    | RestartSwitch
    | SetBridge
    | AddPorts
    | DeletePorts
    | CleanTc
    | AddIngress
)


def title(step: Step) -> str:
    """A step in a few words."""
    match step:
        case SetVfs():
            return f"{step.pf}: {step.count or 'no'} VFs"
        case SetDrivers():
            bound = sum(1 for driver, _ in step.drivers if driver)
            verb = "unbind the VFs" if not bound else f"bind {bound} VFs"
            return f"{step.pf}: {verb}"
        case SetEswitch():
            return f"{step.pf}: eSwitch {step.attribute.replace('_', ' ')} {step.word}"
        case SetParam():
            return f"{step.pf}: {step.name} {step.word}"
        case SetPorts():
            return _ports_title(step)
        case SetVfAttributes():
            return f"{step.pf}: MAC, VLAN and so on of {len(step.vfs)} VFs"
        case SetOption():
            return f"Open vSwitch: {step.key} {step.value if step.value is not None else 'not set'}"
        case RestartSwitch():
            return "Open vSwitch: restart"
        case SetBridge():
            return f"Open vSwitch: {'make' if step.there else 'take away'} bridge {step.name}"
        case AddPorts():
            return f"Open vSwitch: {_some([port.shown for port in step.ports])} into {step.bridge}"
        case DeletePorts():
            return f"Open vSwitch: {_some(list(step.names))} out of {step.bridge}"
        case CleanTc():
            return f"TC: no flows of Open vSwitch on {_some(list(step.devices))}"
        case AddIngress():
            return f"TC: what was at ingress of {_some([one.netdev for one in step.qdiscs])}"


def _ports_title(step: SetPorts) -> str:
    words = []
    for attribute, on, off in (("offload", "hw-tc-offload on", "hw-tc-offload off"), ("up", "up", "down")):
        states = {getattr(one, attribute) for one in step.ports} - {None}
        words += [on] * (True in states) + [off] * (False in states)
    for attribute, word in (("name", "names"), ("mac", "MACs"), ("mtu", "MTU")):
        words += [word] * any(getattr(one, attribute) for one in step.ports)
    return f"{_some([one.port.shown for one in step.ports])}: {', '.join(words) or 'nothing'}"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
