# SPDX-License-Identifier: Apache-2.0
"""What a host has for hardware offload, as frozen data: NICs, eSwitches, network devices, TC, Open vSwitch, platform.

:func:`asap2.host.observe.observe` reads it from the machine; :mod:`asap2.host.capture` writes it to a file and reads it
elsewhere. Everything that judges or plans is a function of it. None and an empty tuple mean that the host has no such
thing or does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from asap2.host.connections import Connections
from asap2.host.logical import LogicalPath

Pairs = tuple[tuple[str, str], ...]
"""A small dictionary, in the order of its keys."""

LEGACY, SWITCHDEV = "legacy", "switchdev"
SECURE = "secure"
"""The fail_mode of a bridge that drops what no OpenFlow rule is for, with a controller and without."""
VFIO = ("vfio-pci", "mlx5_vfio_pci", "pci-stub", "uio_pci_generic", "igb_uio")
"""Drivers by which a virtual machine or a user-space program gets a function."""

_PORT_NAME = re.compile(r"(?:c\d+)?pf(\d+)vf(\d+)|(\d+)")
"""phys_port_name of a VF's representor; in kernels before 5.1, mlx5's is the VF's number alone."""
_UPLINK_NAME = re.compile(r"p(\d+)(?:s\d+)?")


@dataclass(frozen=True, slots=True)
class Eswitch:
    """A PF's eSwitch as devlink tells it: ``mode`` "legacy" or "switchdev", ``inline_mode`` "none", "link", "network"
    or "transport", ``encap_mode`` "none" or "basic"; None is what the driver does not tell."""

    mode: str
    inline_mode: str | None = None
    encap_mode: str | None = None


@dataclass(frozen=True, slots=True)
class Away:
    """Where a VF's network device is: in the network namespace called ``netns`` (``ip netns``)."""

    netns: str
    netdev: str
    mac: str


@dataclass(frozen=True, slots=True)
class Vf:
    """A virtual function, and its attributes as ``ip link set PF vf N`` sets them.

    ``driver`` is None when unbound; ``netdev`` is its network device in this network namespace, None when it has none
    or when that is elsewhere: ``away`` says where, if that has a name; ``iommu_group`` None without an IOMMU;
    ``opened_by`` names the process that holds it through VFIO. ``rates`` are minimum and maximum in Mbit/s,
    ``link_state`` "auto", "enable" or "disable"; the counters are of packets and bytes as the guest sees them.
    """

    index: int
    address: str
    driver: str | None = None
    driver_override: str | None = None
    netdev: str | None = None
    iommu_group: int | None = None
    opened_by: str | None = None
    mac: str = "00:00:00:00:00:00"
    vlan: int = 0
    qos: int = 0
    vlan_protocol: int = 0x8100
    spoofchk: bool = False
    trust: bool = False
    link_state: str = "auto"
    rates: tuple[int, int] = (0, 0)
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    away: Away | None = None


@dataclass(frozen=True, slots=True)
class Pf:
    """A physical function that has, or could have, an eSwitch.

    ``address`` is the PCI address, ``netdev`` its network device (in switchdev mode the uplink representor).
    ``eswitch`` is None when there is none, and ``eswitch_refusal`` is what the driver said. Link speeds are in GT/s,
    widths in lanes, 0 when unknown. ``params`` are devlink parameters with their runtime values; ``irqs`` pairs an
    interrupt with the CPUs that take it. ``vf_device`` is the PCI device id of its VFs, 0 when not told.
    """

    address: str
    vendor: int
    device: int
    driver: str | None = None
    netdev: str | None = None
    total_vfs: int = 0
    num_vfs: int = 0
    autoprobe: bool = True
    numa_node: int | None = None
    local_cpus: str = ""
    link_speed: float = 0.0
    link_width: int = 0
    max_link_speed: float = 0.0
    max_link_width: int = 0
    firmware: str | None = None
    board: str | None = None
    eswitch: Eswitch | None = None
    eswitch_refusal: str | None = None
    params: Pairs = ()
    irqs: Pairs = ()
    vfs: tuple[Vf, ...] = ()
    vf_device: int = 0

    @property
    def name(self) -> str:
        """What people call it: its network device, or else its address."""
        return self.netdev or self.address

    @property
    def switchdev(self) -> bool:
        """Whether its eSwitch is in switchdev mode."""
        return self.eswitch is not None and self.eswitch.mode == SWITCHDEV

    @property
    def number(self) -> int:
        """The PF's number on its device, which is its PCI function's."""
        return int(self.address.rpartition(".")[2], 16)


@dataclass(frozen=True, slots=True)
class Netdev:
    """A network device of this network namespace. ``up`` is IFF_UP; ``kind`` is rtnetlink's ("vlan", "bond"…),
    ``lower`` the device that it is stacked on, ``master`` what it is a port of; ``parent`` the PCI address behind it.
    ``name_assigned`` is NET_NAME_*: 1 counted by the kernel, 4 renamed. ``cpu_packets`` are those that came to the
    host's CPU where the driver tells them apart: a representor's other counters are then its VF's."""

    index: int
    name: str
    mac: str = ""
    mtu: int = 0
    up: bool = False
    carrier: bool | None = None
    kind: str | None = None
    master: str | None = None
    lower: str | None = None
    parent: str | None = None
    switch_id: str | None = None
    port_name: str | None = None
    hw_tc_offload: bool | None = None
    name_assigned: int | None = None
    nm_managed: bool | None = None
    addresses: tuple[str, ...] = ()
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    cpu_packets: int | None = None

    @property
    def host_packets(self) -> int:
        """The packets, either way, that the host saw."""
        return self.rx_packets + self.tx_packets if self.cpu_packets is None else self.cpu_packets

    @property
    def vf_number(self) -> int | None:
        """The VF that it represents, None when it represents none."""
        found = _PORT_NAME.fullmatch(self.port_name or "") if self.switch_id else None
        return int(found[2] or found[3]) if found else None

    @property
    def pf_number(self) -> int | None:
        """The number of the PF whose VF, or whose port, it represents; None where the kernel does not tell."""
        name = self.port_name or ""
        found = _PORT_NAME.fullmatch(name) or _UPLINK_NAME.fullmatch(name) if self.switch_id else None
        return int(found[1]) if found and found[1] else None

    @property
    def is_uplink(self) -> bool:
        """Whether it is an eSwitch's uplink representor."""
        return bool(self.switch_id and _UPLINK_NAME.fullmatch(self.port_name or ""))


@dataclass(frozen=True, slots=True)
class Qdisc:
    """An ingress or clsact qdisc; ``block`` is the shared block that its filters are in, 0 for its own."""

    netdev: str
    kind: str
    block: int = 0


@dataclass(frozen=True, slots=True)
class Filter:
    """A TC filter at ingress (or, with ``egress``, at clsact's egress). ``handle``, ``prio`` and ``protocol`` (a host
    integer) name it. ``in_hw`` is None where the kernel does not say. ``cookie`` is its first action's, hexadecimal: a
    flow of Open vSwitch has its UFID there. ``message`` is the whole message of
    asap2.netlink.tables.tc, hexadecimal: of Open vSwitch's in captures only."""

    netdev: str
    kind: str
    prio: int
    protocol: int
    handle: int
    chain: int = 0
    egress: bool = False
    block: int = 0
    in_hw: bool | None = None
    skip_hw: bool = False
    skip_sw: bool = False
    cookie: str = ""
    packets: int = 0
    bytes: int = 0
    message: str = ""

    @property
    def of_open_vswitch(self) -> bool:
        """Whether it looks like a flow of Open vSwitch: flower, with a UFID for a cookie."""
        return self.kind == "flower" and len(self.cookie) == 32


@dataclass(frozen=True, slots=True)
class Interface:
    """A row of OVSDB's table Interface; of external_ids only those that name the guest, of options no keys."""

    name: str
    type: str = ""
    error: str | None = None
    ofport: int | None = None
    options: Pairs = ()
    external_ids: Pairs = ()


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a bridge, with its interfaces (more than one is a bond)."""

    name: str
    tag: int | None = None
    vlan_mode: str | None = None
    interfaces: tuple[Interface, ...] = ()


@dataclass(frozen=True, slots=True)
class Remote:
    """An OpenFlow controller, or a manager of the database, that Open vSwitch is to connect to. ``state`` is "VOID",
    "BACKOFF", "CONNECTING", "ACTIVE" or "IDLE"; ``seconds`` since it was last connected, None when it never was."""

    target: str
    connected: bool = False
    state: str | None = None
    last_error: str | None = None
    seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge. ``ct_flows`` counts its OpenFlow rules that use connection tracking, ``flows`` all of them but those
    that Open vSwitch itself makes and hides; None when they were not counted. ``fail_mode`` is "secure" or
    "standalone", None when not set, which is standalone."""

    name: str
    datapath_type: str = ""
    ports: tuple[Port, ...] = ()
    flows: int | None = None
    ct_flows: int = 0
    fail_mode: str | None = None
    controllers: tuple[Remote, ...] = ()


@dataclass(frozen=True, slots=True)
class DatapathPort:
    """A port of a datapath: ``type`` is "" for a network device, else "internal", "vxlan" and so on."""

    number: int
    name: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class OpenVSwitch:
    """Open vSwitch: its database's state when ``database``, its switch's when ``running``.

    ``offloaded_flows`` is None while the switch has no flow API in use, whatever hw-offload says: it was not restarted,
    or has no port that takes it. ``lookups`` are the datapath's hit, missed and lost. ``datapath_flows`` are the lines
    of ``dpctl/dump-flows -m`` and ``userspace_flows`` those of userspace datapaths, ``log`` the lines of its log that
    say why flows are not offloaded, or what was refused. ``flow_limit`` is the most flows that it has at present.
    ``datapath_features`` are OVS_DP_F_* that are in force, None where the kernel does not tell. ``silent`` is a daemon
    that runs and does not answer: what it would tell is as if it did not run. ``ovn_remote`` is where ovn-controller
    finds OVN's southbound database.
    """

    installed: str | None = None
    database: bool = False
    running: bool = False
    version: str | None = None
    other_config: Pairs = ()
    bridges: tuple[Bridge, ...] = ()
    flows: int | None = None
    offloaded_flows: int | None = None
    lookups: tuple[int, int, int] | None = None
    service: str | None = None
    datapath_flows: tuple[str, ...] = ()
    userspace_flows: tuple[str, ...] = ()
    datapath_ports: tuple[DatapathPort, ...] = ()
    datapath_features: int | None = None
    flow_limit: int | None = None
    log: tuple[str, ...] = ()
    managers: tuple[Remote, ...] = ()
    silent: str | None = None
    ovn_remote: str | None = None

    @property
    def trouble(self) -> str | None:
        """Why the switch cannot be asked; None when it can."""
        if self.running:
            return None
        if self.silent:
            return f"{self.silent} does not answer"
        return "Open vSwitch is not running" if self.installed else "Open vSwitch is not installed"

    @property
    def remedy(self) -> str:
        """What to do about :attr:`trouble`."""
        if not self.installed:
            return "install it first"
        verb = "restart" if self.silent else "start"
        return f"`systemctl {verb} {self.service or 'openvswitch'}` {verb}s it"

    def datapath_type(self, port: str) -> str | None:
        """The type of the datapath's port called *port*; None when there is none."""
        return next((one.type for one in self.datapath_ports if one.name == port), None)

    def option(self, key: str) -> str | None:
        """Open_vSwitch.other_config:KEY."""
        return dict(self.other_config).get(key)

    @property
    def hw_offload(self) -> bool:
        """Whether the database asks for hardware offload."""
        return (self.option("hw-offload") or "").lower() == "true"

    def port_of(self, netdev: str) -> tuple[Bridge, Port] | None:
        """The bridge and port that the interface called *netdev* belongs to."""
        for bridge in self.bridges:
            for port in bridge.ports:
                if any(interface.name == netdev for interface in port.interfaces):
                    return bridge, port
        return None

    def interface(self, netdev: str) -> Interface | None:
        """The interface called *netdev*."""
        found = self.port_of(netdev)
        return next((one for one in found[1].interfaces if one.name == netdev), None) if found else None


@dataclass(frozen=True, slots=True)
class Platform:
    """The machine and its programs. ``components`` are installed parts of OpenStack with their versions; ``governors``
    the CPUs' frequency governors in use; ``udev_rules`` the rule files that name or set up representors."""

    kernel: str
    iproute2: str | None = None
    components: Pairs = ()
    iommu_groups: int = 0
    iommu_words: tuple[str, ...] = ()
    cpus: int = 0
    governors: tuple[str, ...] = ()
    irqbalance: bool = False
    network_manager: bool = False
    udev_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """A rule that was put into a NIC with skip_sw and taken out again: ``name`` says what it needs, ``refusal`` is None
    when the NIC took it, else the kernel's words."""

    netdev: str
    name: str
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class FlowTrial:
    """A flow's rule that was tried: with ``skip_sw`` in the NIC alone, else as Open vSwitch would put it in. ``error``
    is 0 when it was taken, -1 when it could not be tried, else an errno; ``refusal`` is what was said, ``in_words``
    whether those are the driver's own words; ``culprits`` are parts of the rule without which it is taken. ``skip_hw``
    is whether the flow's filter, which is in TC already, asks for no hardware."""

    ufid: str
    skip_sw: bool
    error: int = 0
    refusal: str = ""
    in_words: bool = False
    culprits: tuple[str, ...] = ()
    skip_hw: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """Everything. ``taken`` is when, in UTC (ISO 8601); ``reached_by`` names the network devices on the way to the
    default gateways and to who is logged in over SSH, down to the physical ones. ``ct_states`` are the states of
    connection tracking that TC matches (OVS_CS_F_*), found by trying; None when that was not tried. ``connections`` is
    None where connection tracking is not loaded, or if nobody asked for them. ``logical`` is what OVN has to do with
    flows, ``logical_trouble`` why that is not known."""

    hostname: str
    taken: str
    platform: Platform
    pfs: tuple[Pf, ...] = ()
    netdevs: tuple[Netdev, ...] = ()
    qdiscs: tuple[Qdisc, ...] = ()
    filters: tuple[Filter, ...] = ()
    openvswitch: OpenVSwitch = OpenVSwitch()
    reached_by: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    flow_trials: tuple[FlowTrial, ...] = ()
    ct_states: int | None = None
    logical: tuple[LogicalPath, ...] = ()
    logical_trouble: str | None = None
    connections: Connections | None = None

    def netdev(self, name: str | None) -> Netdev | None:
        """The network device called *name*."""
        return next((one for one in self.netdevs if one.name == name), None)

    def pf(self, name: str) -> Pf | None:
        """The PF that *name*, a network device or a PCI address (with or without its domain), means."""
        return next((pf for pf in self.pfs if name in (pf.netdev, pf.address, pf.address.removeprefix("0000:"))), None)

    def uplink(self, pf: Pf) -> Netdev | None:
        """The PF's network device."""
        return self.netdev(pf.netdev)

    def representors(self, pf: Pf) -> Iterator[tuple[int, Netdev]]:
        """The VF numbers and representors of *pf*'s eSwitch, by VF."""
        uplink = self.uplink(pf)
        if uplink is None or uplink.switch_id is None:
            return
        for netdev in sorted(self.netdevs, key=lambda one: one.vf_number if one.vf_number is not None else -1):
            number = netdev.vf_number
            if number is not None and netdev.switch_id == uplink.switch_id and netdev.pf_number in (None, pf.number):
                yield number, netdev

    def representor(self, pf: Pf, vf: int) -> Netdev | None:
        """The representor of VF number *vf* of *pf*."""
        return dict(self.representors(pf)).get(vf)

    def qdisc(self, netdev: str) -> Qdisc | None:
        """The ingress or clsact qdisc of the device called *netdev*."""
        return next((one for one in self.qdiscs if one.netdev == netdev), None)


def vf_user(vf: Vf) -> str | None:
    """Who uses *vf*: None when nobody does; else words for a sentence ("a guest (qemu-kvm, pid 412)")."""
    if vf.opened_by:
        return f"a guest ({vf.opened_by})"
    if vf.driver in VFIO or vf.driver is None:
        return None
    if vf.away is not None:
        return f"a guest (its network device {vf.away.netdev} is in the namespace {vf.away.netns})"
    if vf.netdev is None:
        return "a guest (its network device is in another namespace)"
    return None


def vf_use_by_host(host: Host, vf: Vf) -> str | None:
    """What this host itself does with *vf*: None for nothing that a new start would lose."""
    netdev = host.netdev(vf.netdev)
    if netdev is None:
        return None
    if netdev.addresses:
        return f"it has the address {netdev.addresses[0]}"
    if netdev.master:
        return f"it is a port of {netdev.master}"
    return None


def place(filter: Filter) -> tuple[object, ...]:
    """What names a filter among all of a host."""
    return filter.netdev, filter.egress, filter.chain, filter.prio, filter.protocol, filter.handle
