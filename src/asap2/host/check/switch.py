# SPDX-License-Identifier: Apache-2.0
"""Checks of Open vSwitch: that it runs, its options, its bridges, and the rules that keep flows out of hardware."""

from __future__ import annotations

from collections.abc import Iterator

from asap2.host.check.eswitch import bridged
from asap2.host.check.finding import Result, check, fail, listed, ok, unknown, warn
from asap2.host.inventory import SECURE, Host, Pf
from asap2.host.refused import Refused, reached, refused, unreached

PFS = tuple[Pf, ...]
SHORT_IDLE = 1000
DEFAULT_IDLE = 10000
"""Milliseconds (ovs-vswitchd.conf.db(5), max-idle)."""
SET = "ovs-vsctl set Open_vSwitch . other_config:"


@check("ovs.running", "ovs-vswitchd installs the flows")
def running(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether database and switch run."""
    switch = host.openvswitch
    service = switch.service or "openvswitch"
    start = f"systemctl start {service}"
    if switch.silent:
        yield fail(f"{switch.silent} is running but does not answer", f"systemctl restart {service}")
    elif not switch.database:
        yield fail("no database server answers", start)
    elif not switch.running:
        yield fail("ovs-vswitchd does not run", start)
    else:
        yield ok("ovsdb-server and ovs-vswitchd")


@check("ovs.hw-offload", "without it Open vSwitch gives no flow to TC; a change takes effect at the next start")
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
        yield fail("true, but not in force: the switch has not been restarted since", restart)
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
        yield warn(f"{word!r} is not a number of milliseconds", f"{SET}max-idle=30000")
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


@check("ovs.ports", "a port with an error is not in the datapath")
def ports(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Errors that Open vSwitch has with its interfaces."""
    for bridge in host.openvswitch.bridges:
        for port in bridge.ports:
            for one in port.interfaces:
                if one.error:
                    yield fail(one.error, f"ovs-vsctl del-port {bridge.name} {port.name}", one.name)


@check("ovs.controllers", "a bridge gets its OpenFlow rules from its controller")
def controllers(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether the bridges' controllers are connected."""
    for bridge in host.openvswitch.bridges if host.openvswitch.running else ():
        lost = [one for one in bridge.controllers if not reached(one)]
        for one in lost:
            fix = f"start what listens at {one.target}, or: ovs-vsctl del-controller {bridge.name}"
            secure = bridge.fail_mode == SECURE and len(lost) == len(bridge.controllers)
            then = "; fail_mode secure: no rule comes or goes" if secure else ""
            yield (fail if secure else warn)(f"{unreached(one)}{then}", fix, bridge.name)
        if bridge.controllers and not lost:
            yield ok(f"connected: {listed([one.target for one in bridge.controllers])}", bridge.name)


@check("ovs.managers", "a manager, such as OVN's or an SDN controller's, sets up bridges and ports in the database")
def managers(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Whether the database's managers are connected."""
    have = host.openvswitch.managers
    for one in have:
        if not reached(one):
            yield warn(unreached(one), f"start what listens at {one.target}, or: ovs-vsctl del-manager")
    if have and all(map(reached, have)):
        yield ok(f"connected: {listed([one.target for one in have])}")


@check("ovs.fail-mode", "a bridge in fail_mode secure drops every packet that no OpenFlow rule matches")
def fail_mode(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Bridges that drop everything."""
    for one in _refused(host, "bridge.empty"):
        fix = f"start its controller, or: ovs-vsctl del-fail-mode {one.about}"
        yield fail(f"{one.found}: it drops every packet", fix, one.about)


@check("openflow.refused", "a rule that the switch rejected is missing, and so is the rest of its bundle")
def openflow_refused(host: Host, _pfs: PFS) -> Iterator[Result]:
    """OpenFlow messages that the switch rejected recently."""
    for one in _refused(host, "openflow.refused"):
        fix = "look in the log of the controller or agent for the request: `asap2 host explain` has the switch's line"
        yield warn(f"{one.found}, {_times(one)} in the last minutes", fix, one.about)


@check("datapath.refused", "the switch itself handles each packet of a flow that the datapath refuses")
def datapath_refused(host: Host, _pfs: PFS) -> Iterator[Result]:
    """Flows that the datapath did not accept recently."""
    found = _refused(host, "datapath.refused")
    for error in sorted({one.found.partition(": ")[0] for one in found}):
        flows = [one for one in found if one.found.startswith(f"{error}: ")]
        fix = "asap2 host explain   # shows the flows; dmesg | tail may say more"
        yield fail(f"{len(flows)} flow{'s' * (len(flows) != 1)}, as the log says: {error}", fix)


def _refused(host: Host, code: str) -> list[Refused]:
    return [one for one in refused(host) if one.code == code]


def _times(one: Refused) -> str:
    return "once" if one.times == 1 else f"{one.times} times"


@check("ct", "flows under connection tracking need a NIC and kernel that offload it; ICMP and new connections never do")
def connection_tracking(host: Host, pfs: PFS) -> Iterator[Result]:
    """OpenFlow rules with connection tracking, such as those of port security and security groups."""
    names = {netdev.name for pf in pfs for netdev in bridged(host, pf)}
    ours = {place[0].name for name in names if (place := host.openvswitch.port_of(name))}
    using = [bridge for bridge in host.openvswitch.bridges if bridge.ct_flows]
    for bridge in using:
        found = f"{bridge.ct_flows} of {bridge.flows} OpenFlow rules of {bridge.name} track connections"
        fix = "test with established TCP, not ping; `openstack port set --disable-port-security` avoids it"
        yield warn(found, fix, bridge.name)
    if ours and not using:
        yield ok(f"no rule of {listed(sorted(ours))} tracks connections")


CHECKS = (
    running,
    hw_offload,
    tc_policy,
    max_idle,
    datapath,
    ports,
    controllers,
    managers,
    fail_mode,
    openflow_refused,
    datapath_refused,
    connection_tracking,
)
