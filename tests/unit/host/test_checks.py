# SPDX-License-Identifier: Apache-2.0
"""Each check: what it says of a host that is in order, and of one that is not."""

from __future__ import annotations

import dataclasses

import pytest

from asap2.host.check.audit import CHECKS, audit, summary
from asap2.host.check.finding import Finding, Verdict
from asap2.host.check.surroundings import cpu_list
from asap2.host.inventory import Bridge, Eswitch, Host, Interface, Netdev, Port, Remote, Trial
from asap2.host.trial import rules
from tests.unit.host.hosts import (
    PF,
    fresh,
    offloading,
    port,
    with_netdev,
    with_pf,
    with_platform,
    with_switch,
    without_netdev,
)


def findings(host: Host) -> dict[str, Finding]:
    """The worst finding of each check."""
    order = [Verdict.OK, Verdict.UNKNOWN, Verdict.WARN, Verdict.FAIL]
    worst: dict[str, Finding] = {}
    for one in audit(host, host.pfs):
        if one.id not in worst or order.index(one.verdict) > order.index(worst[one.id].verdict):
            worst[one.id] = one
    return worst


def tunnelled(host: Host) -> Host:
    """*host* with a VXLAN port."""
    (bridge,) = host.openvswitch.bridges
    vxlan = Port("vx0", interfaces=(Interface("vx0", "vxlan", ofport=9),))
    return with_switch(host, bridges=(dataclasses.replace(bridge, ports=(*bridge.ports, vxlan)),))


def bridged(host: Host, **changes: object) -> Host:
    """*host*, its bridge changed."""
    (bridge,) = host.openvswitch.bridges
    return with_switch(host, bridges=(dataclasses.replace(bridge, **changes),))  # type: ignore[arg-type]


def test_all_is_well_on_a_host_that_is_set_up() -> None:
    for one in audit(offloading(), offloading().pfs):
        assert one.verdict is Verdict.OK, one


def test_every_check_has_an_id_of_its_own_and_a_reason() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert all(check.why and check.function.__doc__ for check in CHECKS)


def test_a_fresh_host_lacks_what_setting_up_gives() -> None:
    failed = {one.id for one in audit(fresh(), fresh().pfs) if one.verdict is Verdict.FAIL}
    assert failed == {"vfs", "eswitch.mode", "hw-tc-offload", "ovs.hw-offload"}


def test_every_failure_says_what_to_do() -> None:
    for host in (fresh(), with_platform(fresh(), kernel="3.10.0"), dataclasses.replace(fresh(), pfs=())):
        assert all(one.fix for one in audit(host, host.pfs) if one.verdict is Verdict.FAIL)


SET_UP = offloading()
REJECTED = (
    "2024-01-01T00:00:00.000Z|00068|connmgr|INFO|br-int<->unix#21: sending OFPBAC_BAD_OUT_GROUP error reply to"
    " OFPT_FLOW_MOD message"
)
NOT_TAKEN = (
    "2024-01-01T00:00:00.000Z|00148|dpif(handler1)|WARN|system@ovs-system: failed to put[create] (Invalid argument)"
    " ufid:1-2 recirc_id(0),in_port(2),eth_type(0x0800), actions:ct(commit,helper=ftp)"
)
BONDED = with_netdev(bridged(SET_UP, ports=(port("bond0"), port("eth0"), port("eth1"))), PF, master="bond0")
CASES = [
    ("representors.bridged", Verdict.OK, BONDED),
    ("tc.orphans", Verdict.OK, BONDED),
    ("tc.ingress", Verdict.OK, BONDED),
    ("kernel", Verdict.FAIL, with_platform(SET_UP, kernel="4.12.14-lp")),
    ("iproute2", Verdict.FAIL, with_platform(SET_UP, iproute2="4.11.0")),
    ("iproute2", Verdict.WARN, with_platform(SET_UP, iproute2=None)),
    ("iproute2", Verdict.OK, with_platform(SET_UP, iproute2="ss180813")),
    ("openvswitch", Verdict.FAIL, with_switch(SET_UP, installed="2.7.3")),
    ("openvswitch", Verdict.FAIL, with_switch(SET_UP, installed=None)),
    ("openstack", Verdict.FAIL, with_platform(SET_UP, components=(("nova", "15.1.0"),))),
    ("openstack", Verdict.OK, with_platform(SET_UP, components=(("neutron", "21.0.0"), ("nova", "26.1.0")))),
    ("iommu", Verdict.WARN, with_platform(SET_UP, iommu_groups=0)),
    ("firmware", Verdict.FAIL, with_pf(SET_UP, firmware="16.20.1010")),
    ("firmware", Verdict.UNKNOWN, with_pf(SET_UP, firmware=None)),
    ("firmware", Verdict.UNKNOWN, with_pf(SET_UP, vendor=0x8086, device=0x1592)),
    ("firmware", Verdict.FAIL, with_pf(SET_UP, device=0x1015, firmware="14.20.0001")),
    ("nic", Verdict.FAIL, dataclasses.replace(SET_UP, pfs=())),
    ("driver", Verdict.FAIL, with_pf(SET_UP, driver=None, eswitch=None)),
    ("driver", Verdict.FAIL, with_pf(SET_UP, eswitch=None, eswitch_refusal="Operation not supported")),
    ("sriov", Verdict.FAIL, with_pf(SET_UP, total_vfs=0)),
    ("vfs", Verdict.FAIL, with_pf(SET_UP, num_vfs=0, vfs=())),
    ("vfs", Verdict.WARN, with_pf(SET_UP, vfs=tuple(dataclasses.replace(vf, driver=None) for vf in SET_UP.pfs[0].vfs))),
    ("pcie", Verdict.WARN, with_pf(SET_UP, link_width=8)),
    ("pcie", Verdict.WARN, with_pf(SET_UP, link_speed=5.0, max_link_speed=5.0)),
    ("pcie", Verdict.OK, with_pf(SET_UP, link_width=8, max_link_width=8)),
    ("pcie", Verdict.UNKNOWN, with_pf(SET_UP, link_width=0)),
    ("eswitch.mode", Verdict.FAIL, with_pf(SET_UP, eswitch=Eswitch("legacy"))),
    ("eswitch.encap", Verdict.WARN, with_pf(SET_UP, eswitch=Eswitch("switchdev", None, "none"))),
    ("eswitch.encap", Verdict.FAIL, tunnelled(with_pf(SET_UP, eswitch=Eswitch("switchdev", None, "none")))),
    ("eswitch.encap", Verdict.OK, with_pf(SET_UP, device=0x1015, eswitch=Eswitch("switchdev", "transport", "none"))),
    ("eswitch.encap", Verdict.UNKNOWN, with_pf(SET_UP, eswitch=Eswitch("switchdev"))),
    ("eswitch.inline", Verdict.WARN, with_pf(SET_UP, eswitch=Eswitch("switchdev", "link", "basic"))),
    ("eswitch.steering", Verdict.WARN, with_pf(SET_UP, device=0x101D)),
    ("hw-tc-offload", Verdict.FAIL, with_netdev(SET_UP, "eth1", hw_tc_offload=False)),
    ("representors", Verdict.FAIL, without_netdev(SET_UP, "eth1")),
    ("representors.up", Verdict.FAIL, with_netdev(SET_UP, "eth1", up=False)),
    ("representors.bridged", Verdict.WARN, bridged(SET_UP, ports=(port(PF),))),
    ("representors.bridged", Verdict.WARN, bridged(SET_UP, ports=(port("eth0"),))),
    ("mtu", Verdict.WARN, with_netdev(SET_UP, "eth0", mtu=9000)),
    ("mtu", Verdict.FAIL, tunnelled(SET_UP)),
    ("mtu", Verdict.OK, tunnelled(with_netdev(SET_UP, PF, mtu=1550))),
    ("tc.ingress", Verdict.FAIL, dataclasses.replace(SET_UP, qdiscs=SET_UP.qdiscs[:1])),
    ("tc.orphans", Verdict.FAIL, with_switch(SET_UP, other_config=())),
    ("tc.orphans", Verdict.FAIL, bridged(SET_UP, ports=(port(PF),))),
    ("trial", Verdict.FAIL, dataclasses.replace(SET_UP, trials=(Trial("eth0", "drop", "no such capability"),))),
    ("trial", Verdict.UNKNOWN, dataclasses.replace(SET_UP, trials=())),
    ("ovs.running", Verdict.FAIL, with_switch(SET_UP, database=False, running=False)),
    ("ovs.running", Verdict.FAIL, with_switch(SET_UP, running=False)),
    ("ovs.hw-offload", Verdict.FAIL, with_switch(SET_UP, other_config=())),
    ("ovs.hw-offload", Verdict.FAIL, with_switch(SET_UP, offloaded_flows=None)),
    ("ovs.tc-policy", Verdict.FAIL, with_switch(SET_UP, other_config=(("tc-policy", "skip_hw"),))),
    ("ovs.tc-policy", Verdict.WARN, with_switch(SET_UP, other_config=(("tc-policy", "skip_sw"),))),
    ("ovs.max-idle", Verdict.WARN, with_switch(SET_UP, other_config=(("max-idle", "100"),))),
    ("ovs.max-idle", Verdict.WARN, with_switch(SET_UP, other_config=(("max-idle", "soon"),))),
    ("ovs.datapath", Verdict.FAIL, bridged(SET_UP, datapath_type="netdev")),
    (
        "ovs.ports",
        Verdict.FAIL,
        bridged(SET_UP, ports=(Port("eth0", interfaces=(Interface("eth0", error="could not open network device"),)),)),
    ),
    ("ovs.controllers", Verdict.FAIL, bridged(SET_UP, fail_mode="secure", flows=1, controllers=(Remote("tcp:a:1"),))),
    ("ovs.controllers", Verdict.WARN, bridged(SET_UP, controllers=(Remote("tcp:a:1"),))),
    ("ovs.controllers", Verdict.OK, bridged(SET_UP, controllers=(Remote("tcp:a:1", True), Remote("ptcp:6653")))),
    ("ovs.managers", Verdict.WARN, with_switch(SET_UP, managers=(Remote("ssl:a:6640"),))),
    ("ovs.managers", Verdict.OK, with_switch(SET_UP, managers=(Remote("ptcp:6640"),))),
    ("ovs.fail-mode", Verdict.FAIL, bridged(SET_UP, fail_mode="secure", flows=0)),
    ("openflow.refused", Verdict.WARN, with_switch(SET_UP, log=(REJECTED,))),
    ("datapath.refused", Verdict.FAIL, with_switch(SET_UP, log=(NOT_TAKEN,))),
    ("ct", Verdict.WARN, bridged(SET_UP, ct_flows=3)),
    ("networkmanager", Verdict.WARN, with_netdev(with_platform(SET_UP, network_manager=True), "eth0", nm_managed=True)),
    ("networkmanager", Verdict.OK, with_platform(SET_UP, network_manager=True)),
    ("udev", Verdict.WARN, with_netdev(SET_UP, "eth0", name_assigned=1)),
    ("udev", Verdict.OK, with_platform(with_netdev(SET_UP, "eth0", name_assigned=1), udev_rules=("/etc/x.rules",))),
    ("governor", Verdict.WARN, with_platform(SET_UP, governors=("performance", "powersave"))),
    ("governor", Verdict.OK, with_platform(SET_UP, governors=())),
    ("numa", Verdict.UNKNOWN, with_pf(SET_UP, numa_node=None)),
    ("irq", Verdict.UNKNOWN, with_pf(SET_UP, irqs=())),
    ("irq", Verdict.WARN, with_pf(SET_UP, irqs=(("40", "12"),))),
    ("irq", Verdict.WARN, with_pf(SET_UP, irqs=(("40", "0"), ("41", "0")))),
]


@pytest.mark.parametrize(("id", "verdict", "host"), CASES, ids=[f"{id}-{verdict}" for id, verdict, _ in CASES])
def test_a_check_sees_what_is_wrong(id: str, verdict: Verdict, host: Host) -> None:
    found = findings(host)[id]
    assert found.verdict is verdict, found


def test_every_check_is_among_the_cases() -> None:
    assert {check.id for check in CHECKS} == {id for id, _, _ in CASES}


def test_a_capture_of_any_kind_is_judged_without_an_error() -> None:
    """Nothing known of anything: no check may fall over."""
    empty = dataclasses.replace(
        fresh(),
        pfs=(dataclasses.replace(fresh().pfs[0], netdev=None, driver=None, eswitch=None, firmware=None, irqs=()),),
        netdevs=(Netdev(1, "lo"),),
        openvswitch=dataclasses.replace(fresh().openvswitch, database=False, running=False, installed=None),
    )
    assert audit(empty, empty.pfs)
    with_bridge = with_switch(SET_UP, bridges=(Bridge("br0"),), running=False)
    assert audit(with_bridge, with_bridge.pfs)


def test_verdicts_are_counted() -> None:
    counts = summary(audit(fresh(), fresh().pfs))
    assert counts[Verdict.FAIL] == 4
    assert sum(counts.values()) == len(audit(fresh(), fresh().pfs))


def test_lists_of_cpus_are_read() -> None:
    assert cpu_list("0-2,8") == {0, 1, 2, 8}
    assert cpu_list("") == frozenset()


def test_no_rule_is_tried_in_a_block_that_a_bond_shares() -> None:
    """The kernel refuses skip_sw there, whatever the NIC can."""
    alone = [rule.netdev.name for rule in rules(SET_UP, SET_UP.pfs[0])]
    qdiscs = tuple(dataclasses.replace(one, block=9 * (one.netdev == PF)) for one in SET_UP.qdiscs)
    bonded = dataclasses.replace(SET_UP, qdiscs=qdiscs)
    tried = [rule.netdev.name for rule in rules(bonded, bonded.pfs[0])]
    assert PF in alone
    assert tried == [name for name in alone if name != PF]
