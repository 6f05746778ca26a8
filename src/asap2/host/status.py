# SPDX-License-Identifier: Apache-2.0
"""``asap2 host status``: the host's inventory as a person thinks of it: NICs, their VFs, who uses them, what flows
where."""

from __future__ import annotations

from dataclasses import dataclass

from asap2.host import versions
from asap2.host.attachment import Attachment, attachment
from asap2.host.connections import Connections
from asap2.host.inventory import Host, Netdev, Pf, Vf, vf_user


@dataclass(frozen=True, slots=True)
class VfStatus:
    """A VF: its place, its guest, and what it and the host saw.

    ``mac`` is the administrator's, or else that of its device, wherever it is; ``vlan`` is its port's tag, or in legacy
    mode its own; ``guest`` names who has it, None when nobody is known, and ``attachment`` what Open vSwitch says of
    that. Packets are as the guest sees them; ``host_packets`` are those of them that went through its representor,
    either way.
    """

    index: int
    address: str
    driver: str | None
    netdev: str | None
    mac: str | None
    vlan: int | None
    guest: str | None
    representor: str | None
    up: bool | None
    bridge: str | None
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    host_packets: int
    attachment: Attachment | None = None

    @property
    def offloaded(self) -> float | None:
        """The part of its packets that never came to the host, 0 to 1; None when it had none."""
        total = self.rx_packets + self.tx_packets
        return max(0.0, 1 - self.host_packets / total) if total else None


@dataclass(frozen=True, slots=True)
class NicStatus:
    """A PF and its eSwitch; ``rules`` are TC rules of its ports in the NIC and in software."""

    name: str
    address: str
    model: str
    firmware: str | None
    driver: str | None
    mode: str | None
    encap: str | None
    inline: str | None
    steering: str | None
    hw_tc_offload: bool | None
    up: bool | None
    carrier: bool | None
    mtu: int | None
    mac: str | None
    bridge: str | None
    total_vfs: int
    num_vfs: int
    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    rules_in_hardware: int
    rules_in_software: int
    vfs: tuple[VfStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowStatus:
    """Where Open vSwitch's flows are: in NICs, in TC's software, in its own datapath. ``lookups`` of the last are hit,
    missed (upcalls) and lost."""

    in_hardware: int
    in_tc_software: int
    in_datapath: int | None
    lookups: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Status:
    """The page. ``connections`` are those that the kernel tracks; None where it tracks none at all."""

    host: str
    taken: str
    kernel: str
    openvswitch: str | None
    running: bool
    silent: str | None
    hw_offload: bool
    in_force: bool
    flows: FlowStatus
    connections: Connections | None = None
    nics: tuple[NicStatus, ...] = ()


def status(host: Host, pfs: tuple[Pf, ...]) -> Status:
    """The page of *host*, as far as *pfs* are concerned."""
    switch = host.openvswitch
    ours = [one for one in host.filters if one.of_open_vswitch]
    in_hardware = sum(1 for one in ours if one.in_hw)
    return Status(
        host=host.hostname,
        taken=host.taken,
        kernel=host.platform.kernel,
        openvswitch=switch.installed,
        running=switch.running,
        silent=switch.silent,
        hw_offload=switch.hw_offload,
        in_force=switch.offloaded_flows is not None,
        flows=FlowStatus(in_hardware, len(ours) - in_hardware, switch.flows, switch.lookups),
        connections=host.connections,
        nics=tuple(_nic(host, pf) for pf in pfs),
    )


def _nic(host: Host, pf: Pf) -> NicStatus:
    uplink = host.uplink(pf)
    device = versions.DEVICES.get((pf.vendor, pf.device))
    place = host.openvswitch.port_of(pf.name)
    representors = dict(host.representors(pf))
    ports = {pf.name, *(netdev.name for netdev in representors.values())}
    rules = [one for one in host.filters if one.netdev in ports]
    return NicStatus(
        name=pf.name,
        address=pf.address,
        model=device.name if device else f"{pf.vendor:04x}:{pf.device:04x}",
        firmware=pf.firmware,
        driver=pf.driver,
        mode=pf.eswitch.mode if pf.eswitch else None,
        encap=pf.eswitch.encap_mode if pf.eswitch else None,
        inline=pf.eswitch.inline_mode if pf.eswitch else None,
        steering=dict(pf.params).get("flow_steering_mode"),
        hw_tc_offload=uplink.hw_tc_offload if uplink else None,
        up=uplink.up if uplink else None,
        carrier=uplink.carrier if uplink else None,
        mtu=uplink.mtu if uplink else None,
        mac=uplink.mac if uplink else None,
        bridge=place[0].name if place else None,
        total_vfs=pf.total_vfs,
        num_vfs=pf.num_vfs,
        rx_packets=uplink.rx_packets if uplink else 0,
        rx_bytes=uplink.rx_bytes if uplink else 0,
        tx_packets=uplink.tx_packets if uplink else 0,
        tx_bytes=uplink.tx_bytes if uplink else 0,
        rules_in_hardware=sum(1 for one in rules if one.in_hw),
        rules_in_software=sum(1 for one in rules if not one.in_hw),
        vfs=tuple(_vf(host, vf, representors.get(vf.index)) for vf in pf.vfs),
    )


def _vf(host: Host, vf: Vf, representor: Netdev | None) -> VfStatus:
    place = host.openvswitch.port_of(representor.name) if representor else None
    own = host.netdev(vf.netdev)
    set_mac = vf.mac if vf.mac.strip("0:") else None
    device_mac = own.mac if own else vf.away.mac if vf.away else None
    behind = attachment(host, representor.name if representor else None)
    return VfStatus(
        index=vf.index,
        address=vf.address,
        driver=vf.driver,
        netdev=vf.netdev,
        mac=set_mac or device_mac,
        vlan=(place[1].tag if place else None) or vf.vlan or None,
        guest=guest(vf, behind),
        representor=representor.name if representor else None,
        up=representor.up if representor else None,
        bridge=place[0].name if place else None,
        rx_packets=vf.rx_packets,
        rx_bytes=vf.rx_bytes,
        tx_packets=vf.tx_packets,
        tx_bytes=vf.tx_bytes,
        host_packets=representor.host_packets if representor else 0,
        attachment=behind,
    )


def guest(vf: Vf, behind: Attachment | None) -> str | None:
    """Who has *vf*: what Open vSwitch says (OpenStack's, libvirt's names), the process that holds it, or where its
    device is."""
    if behind:
        return str(behind)
    if vf.opened_by:
        return vf.opened_by
    if vf.away:
        return f"{vf.away.netdev} in {vf.away.netns}"
    return "in another namespace" if vf_user(vf) else None
