# SPDX-License-Identifier: Apache-2.0
"""Checks of Open vSwitch: that it runs, its options, its bridges, and the rules that keep flows out of hardware."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host.check.eswitch import bridged
from asap2.host.check.finding import Result, check, fail, listed, ok, unknown, warn
from asap2.host.inventory import Host, Pf

PFS = tuple[Pf, ...]
SHORT_IDLE = 1000
DEFAULT_IDLE = 10000
"""Milliseconds (ovs-vswitchd.conf.db(5), max-idle)."""
SET = "ovs-vsctl set Open_vSwitch . other_config:"


@check("ovs.running", "ovs-vswitchd puts the flows in")
def running(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether database and switch run."""
    switch = host.openvswitch
    start = f"systemctl start {switch.service or 'openvswitch'}"
    if not switch.database:
        yield fail("no database server answers", start)
    elif not switch.running:
        yield fail("ovs-vswitchd does not run", start)
    else:
        yield ok("ovsdb-server and ovs-vswitchd")


@check("ovs.hw-offload", "without it Open vSwitch gives no flow to TC; a change counts from the next start")
def hw_offload(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether hw-offload is on, and in force."""
    switch = host.openvswitch
    restart = f"systemctl restart {switch.service or 'openvswitch'}"
    if not switch.database:
        yield unknown("the database does not answer")
    elif not switch.hw_offload:
        yield fail(f"{switch.option('hw-offload') or 'not set'}", f"{SET}hw-offload=true && {restart}")
    elif not switch.running or not any(bridge.ports for bridge in switch.bridges):
        yield ok("true")
    elif switch.offloaded_flows is None:
        yield fail("true, and not in force: the switch was not started anew since", restart)
    else:
        yield ok("true, and in force")


@check("ovs.tc-policy", "it says where flows may be: skip_hw keeps all of them out of the NIC")
def tc_policy(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether the TC policy lets flows into hardware."""
    if not host.openvswitch.database:
        return
    have = host.openvswitch.option("tc-policy") or "none"
    restart = f"systemctl restart {host.openvswitch.service or 'openvswitch'}"
    fix = f"ovs-vsctl remove Open_vSwitch . other_config tc-policy && {restart}"
    if have == "skip_hw":
        yield fail("skip_hw", fix)
    elif have == "skip_sw":
        yield warn("skip_sw: what the NIC refuses is not tried in TC's software", fix)
    else:
        yield ok(have)


@check("ovs.max-idle", "flows that come and go cost upcalls and rule updates")
def max_idle(host: Host, _pfs: PFS) -> Iterator[Result]:
    """How long unused flows stay."""
    if not host.openvswitch.database:
        return
    word = host.openvswitch.option("max-idle")
    if word is None:
        yield ok(f"{DEFAULT_IDLE} ms (not set)")
    elif not word.isdecimal():
        yield warn(f"{word!r} is no number of milliseconds", f"{SET}max-idle=30000")
    elif int(word) < SHORT_IDLE:
        yield warn(f"{word} ms", f"{SET}max-idle=30000")
    else:
        yield ok(f"{word} ms")


@check("ovs.datapath", "a bridge of the userspace datapath does not offload through TC")
def datapath(host: Host, pfs: PFS) -> Iterator[Result]:
    """The datapath of the bridges that uplinks and representors are in."""
    names = {netdev.name for pf in pfs for netdev in bridged(host, pf)}
    found = {place[0].name: place[0] for name in sorted(names) if (place := host.openvswitch.port_of(name))}
    for bridge in found.values():
        if bridge.datapath_type in ("", "system"):
            yield ok("system", bridge.name)
        else:
            yield fail(bridge.datapath_type, f"ovs-vsctl set bridge {bridge.name} datapath_type=system", bridge.name)


@check("ovs.ports", "a port with an error is not there for the datapath")
def ports(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Errors that Open vSwitch has with its interfaces."""
    for bridge in host.openvswitch.bridges:
        for port in bridge.ports:
            for one in port.interfaces:
                if one.error:
                    yield fail(one.error, f"ovs-vsctl del-port {bridge.name} {port.name}", one.name)


@check("ct", "flows under connection tracking need a NIC and kernel that offload it; ICMP and new connections never do")
def connection_tracking(host: Host, pfs: PFS) -> Iterator[Result]:
    """OpenFlow rules with connection tracking, as port security and security groups make them."""
    names = {netdev.name for pf in pfs for netdev in bridged(host, pf)}
    ours = {place[0].name for name in names if (place := host.openvswitch.port_of(name))}
    using = [bridge for bridge in host.openvswitch.bridges if bridge.ct_flows]
    for bridge in using:
        found = f"{bridge.ct_flows} of {bridge.flows} OpenFlow rules of {bridge.name} track connections"
        fix = "test with established TCP, not ping; `openstack port set --disable-port-security` does without"
        yield warn(found, fix, bridge.name)
    if ours and not using:
        yield ok(f"no rule of {listed(sorted(ours))} tracks connections")


CHECKS = (running, hw_offload, tc_policy, max_idle, datapath, ports, connection_tracking)
