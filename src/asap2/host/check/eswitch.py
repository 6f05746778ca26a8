# SPDX-License-Identifier: Apache-2.0
"""Checks of the eSwitch, its representors and TC."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host import versions
from asap2.host.check.finding import Result, check, fail, listed, ok, unknown, warn
from asap2.host.inventory import Host, Netdev, Pf

PFS = tuple[Pf, ...]
TUNNELS = ("vxlan", "geneve", "gre")
"""Interface types of Open vSwitch that an eSwitch encapsulates."""
TUNNEL_ROOM = 50
"""Bytes that VXLAN over IPv4 adds: outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348)."""
STEERING = "flow_steering_mode"


def tunnelled(host: Host) -> list[str]:
    """The tunnel interfaces in Open vSwitch."""
    interfaces = [one for bridge in host.openvswitch.bridges for port in bridge.ports for one in port.interfaces]
    return [one.name for one in interfaces if one.type in TUNNELS]


def ports(host: Host, pf: Pf) -> list[Netdev]:
    """The uplink and the representors of *pf*."""
    uplink = host.uplink(pf)
    return [*([uplink] if uplink else []), *(netdev for _, netdev in host.representors(pf))]


def bridged(host: Host, pf: Pf) -> list[Netdev]:
    """Those of :func:`ports` that are in a bridge of Open vSwitch, by themselves or in a bond."""
    return [netdev for netdev in ports(host, pf) if _in_bridge(host, netdev)]


def _in_bridge(host: Host, netdev: Netdev) -> bool:
    return any(host.openvswitch.port_of(name) for name in (netdev.name, netdev.master) if name)


@check("eswitch.mode", "only in switchdev mode do VFs have representors, and can the eSwitch take rules")
def mode(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the eSwitch is in switchdev mode."""
    for pf in pfs:
        if pf.eswitch is None:
            yield unknown(pf.eswitch_refusal or "no eSwitch", None, pf.name)
        elif pf.switchdev:
            yield ok("switchdev", pf.name)
        else:
            yield fail(pf.eswitch.mode, f"asap2 host setup {pf.name}", pf.name)


@check("eswitch.encap", "tunnels are offloaded only when the eSwitch may encapsulate")
def encap(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the eSwitch may encapsulate."""
    tunnels = tunnelled(host)
    for pf in pfs:
        device = versions.DEVICES.get((pf.vendor, pf.device))
        have = pf.eswitch.encap_mode if pf.eswitch else None
        if have is None:
            yield unknown("the driver does not report it", None, pf.name)
        elif have != "none":
            yield ok(have, pf.name)
        elif device and not device.tunnels:
            found = f"none: {device.name} has no tunnel offload"
            yield warn(f"{found}, and {listed(tunnels)} needs it", None, pf.name) if tunnels else ok(found, pf.name)
        else:
            fix = f"devlink dev eswitch set pci/{pf.address} encap-mode basic"
            if tunnels:
                yield fail(f"none, and there is {listed(tunnels)}", fix, pf.name)
            else:
                yield warn("none", fix, pf.name)


@check("eswitch.inline", "rules that match deeper than a VF's packets are inlined are refused")
def inline(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether rules may match up to the transport header."""
    for pf in pfs:
        have = pf.eswitch.inline_mode if pf.eswitch else None
        if have in ("link", "network"):
            fix = f"devlink dev eswitch set pci/{pf.address} inline-mode transport   # while no VF is bound"
            yield warn(f"{have}: rules that match on ports need transport", fix, pf.name)
        elif have:
            yield ok(have, pf.name)


@check("eswitch.steering", "software-managed steering installs rules many times faster, where the NIC supports it")
def steering(_host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the driver or the firmware writes the eSwitch's rules."""
    for pf in pfs:
        device = versions.DEVICES.get((pf.vendor, pf.device))
        have = dict(pf.params).get(STEERING)
        if have is None:
            continue
        if have == "dmfs" and device and device.software_steering:
            fix = f"devlink dev param set pci/{pf.address} name {STEERING} value smfs cmode runtime   # in legacy mode"
            yield warn("dmfs: the firmware writes every rule", fix, pf.name)
        else:
            yield ok(have, pf.name)


@check("hw-tc-offload", "rules of a device without this feature stay in software")
def hw_tc_offload(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether uplink and representors have hw-tc-offload on."""
    for pf in pfs:
        devices = ports(host, pf)
        off = [netdev.name for netdev in devices if netdev.hw_tc_offload is False]
        if not devices or all(netdev.hw_tc_offload is None for netdev in devices):
            yield unknown("the kernel does not report it", f"ethtool -k {pf.name} | grep hw-tc-offload", pf.name)
        elif off:
            yield fail(f"off on {listed(off)}", f"ethtool -K {off[0]} hw-tc-offload on", pf.name)
        else:
            yield ok(f"on, on {listed([netdev.name for netdev in devices])}", pf.name)


@check("representors", "Open vSwitch reaches a VF only through its representor")
def representors(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether each VF has a representor here."""
    for pf in pfs:
        if not pf.switchdev:
            continue
        have = dict(host.representors(pf))
        missing = [str(vf.index) for vf in pf.vfs if vf.index not in have]
        if missing:
            fix = "ip -d link show   # look for it in other namespaces, and at `devlink port show`"
            yield fail(f"VF {listed(missing)} has none in this namespace", fix, pf.name)
        else:
            yield ok(f"{len(have)} found: {listed([netdev.name for netdev in have.values()])}", pf.name)


@check("representors.up", "a VF has no link while its representor is down")
def up(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the devices in bridges are up."""
    for pf in pfs:
        down = [netdev.name for netdev in bridged(host, pf) if not netdev.up]
        if down:
            yield fail(f"down: {listed(down)}", f"ip link set {down[0]} up", pf.name)
        elif bridged(host, pf):
            yield ok(f"{len(bridged(host, pf))} devices in bridges, all up", pf.name)


@check("representors.bridged", "Open vSwitch switches and offloads only what is in its bridges")
def in_bridge(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether uplink and representors are in bridges."""
    if not host.openvswitch.database:
        return
    for pf in pfs:
        if not pf.switchdev:
            continue
        names = {netdev.name for netdev in bridged(host, pf)}
        have = [netdev.name for _, netdev in host.representors(pf) if netdev.name in names]
        total = len(dict(host.representors(pf)))
        uplink = pf.netdev in names
        if not have and total:
            fix = "ovs-vsctl add-port BRIDGE REPRESENTOR   # OpenStack does it when a guest starts"
            yield warn(f"none of {total} representors is in a bridge", fix, pf.name)
        elif not uplink and not tunnelled(host):
            fix = f"ovs-vsctl add-port BRIDGE {pf.netdev}"
            yield warn(f"{len(have)} representors are, and the uplink is not", fix, pf.name)
        else:
            yield ok(f"{len(have)} of {total} representors{', and the uplink' if uplink else ''}", pf.name)


@check("mtu", "a packet that is too long for the wire once tunnelled is not offloaded, but fragmented or lost")
def mtu(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the uplink's MTU has room for what guests send, and for the tunnel's headers."""
    room = TUNNEL_ROOM if tunnelled(host) else 0
    for pf in pfs:
        uplink = host.uplink(pf)
        inner = [netdev.mtu for netdev in bridged(host, pf) if netdev is not uplink]
        need = max(inner, default=0) + room
        if uplink is None or not inner:
            continue
        if uplink.mtu < need:
            found = f"{uplink.name} has {uplink.mtu}, its representors up to {max(inner)}"
            tunnel = f", and a tunnel adds {room}" if room else ""
            yield (fail if room else warn)(f"{found}{tunnel}", f"ip link set {uplink.name} mtu {need}", pf.name)
        else:
            yield ok(f"{uplink.mtu}, {need} needed", pf.name)


@check(
    "tc.ingress",
    "rules are attached to the ingress qdisc; if another program removes it, nothing is offloaded",
)
def ingress(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether Open vSwitch's ports have their ingress qdiscs."""
    if not host.openvswitch.running or not host.openvswitch.hw_offload:
        return
    for pf in pfs:
        names = [netdev.name for netdev in bridged(host, pf)]
        missing = [name for name in names if host.qdisc(name) is None]
        if missing:
            fix = f"systemctl restart {host.openvswitch.service or 'openvswitch'}"
            yield fail(f"missing on {listed(missing)}", fix, pf.name)
        elif names:
            yield ok(f"on {listed(names)}", pf.name)


@check("tc.orphans", "stale filters still take packets away from Open vSwitch")
def orphans(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Flows of Open vSwitch in TC on devices where it no longer offloads."""
    found = [one for one in host.filters if one.of_open_vswitch and not _cared_for(host, one.netdev)]
    names = sorted({one.netdev for one in found})
    if found:
        yield fail(f"{len(found)} flower filters on {listed(names)}", f"tc filter del dev {names[0]} ingress")
    else:
        yield ok("none")


def _cared_for(host: Host, netdev: str) -> bool:
    """Whether Open vSwitch looks after the filters of a device: its port, or the kernel's side of its tunnels."""
    switch = host.openvswitch
    if not switch.running:
        return False
    found = host.netdev(netdev)
    port = found is not None and _in_bridge(host, found)
    port = port or switch.port_of(netdev) is not None or netdev.startswith(("vxlan_sys_", "genev_sys_", "gre_sys"))
    return port and switch.hw_offload


@check("trial", "the surest proof that a NIC takes rules is to give it some (skip_sw) and remove them again")
def trial(host: Host, pfs: PFS) -> Iterator[Result]:
    """Whether the NIC took the rules that were tried."""
    for pf in pfs:
        names = {netdev.name for netdev in ports(host, pf)}
        tried = [one for one in host.trials if one.netdev in names]
        if not tried:
            yield unknown("no rule was tried: there is no representor or uplink with an ingress qdisc", None, pf.name)
            continue
        for one in tried:
            if one.refusal:
                yield fail(f"{one.name} on {one.netdev}: {one.refusal}", "dmesg | tail", pf.name)
        taken = [one.name for one in tried if not one.refusal]
        if taken:
            yield ok(f"taken: {', '.join(dict.fromkeys(taken))}", pf.name)


CHECKS = (
    mode,
    encap,
    inline,
    steering,
    hw_tc_offload,
    representors,
    up,
    in_bridge,
    mtu,
    ingress,
    orphans,
    trial,
)
