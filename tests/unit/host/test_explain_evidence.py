# SPDX-License-Identifier: Apache-2.0
"""Which reason comes first, and what the log and trials say about it."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest

from asap2.errors import Asap2Error
from asap2.host import switch_log
from asap2.host.explain import deep, nic
from asap2.host.explain.explain import explain, select
from asap2.host.explain.flow import parse
from asap2.host.explain.reasons import NEIGHBOURS, REASONS
from asap2.host.inventory import DatapathPort, FlowTrial, Host, Netdev
from tests.unit.host.flow_texts import META, REFUSED, SET_SOURCE, UFID, host, line, reason
from tests.unit.host.hosts import PF, with_netdev

# ---- the order of reasons, and their evidence


def trial(skip_sw: bool, number: int = 0, refusal: str = "", **more: object) -> Host:
    """The host, with a rule that was tried."""
    tried = FlowTrial(UFID, skip_sw, number, refusal, **more)  # type: ignore[arg-type]
    return dataclasses.replace(host(), flow_trials=(tried,))


IN_TC = line().replace("dp:ovs", "dp:tc")
FROM_ETH1 = line(port="eth1").replace("dp:ovs", "dp:tc")


@pytest.mark.parametrize(
    ("text", "where", "code"),
    [
        (line().replace("dp:ovs", "offloaded:yes, dp:tc"), host(), "offloaded"),
        (line("trunc(64),eth1"), host(other_config=(), offloaded_flows=None), "switch.off"),
        (line("trunc(64),eth1"), host(offloaded_flows=None), "switch.not-in-force"),
        (IN_TC, host(other_config=(("hw-offload", "true"), ("tc-policy", "skip_hw"))), "switch.skip-hw"),
        (IN_TC.replace("in_port(eth0)", "in_port(br-int)"), host(), "port.internal"),
        (FROM_ETH1.replace(PF, "drop"), with_netdev(host(), "eth1", kind="vxlan", switch_id=None), "nic.unexplained"),
        (
            FROM_ETH1.replace(PF, "br-int"),
            with_netdev(host(), "eth1", kind="vxlan", switch_id=None),
            "port.tunnel-elsewhere",
        ),
        (IN_TC, with_netdev(host(), "eth0", hw_tc_offload=False), "port.feature-off"),
        (IN_TC, with_netdev(host(), "eth0", switch_id=None, kind="veth"), "port.not-nic"),
        (IN_TC.replace("in_port(eth0)", f"in_port({PF})"), with_netdev(host(), PF, switch_id=None), "port.legacy"),
        (IN_TC.replace(f"actions:{PF}", "actions:br-int"), with_netdev(host(), "br-int"), "nic.unexplained"),
        (IN_TC, with_netdev(host(), PF, switch_id="ff"), "nic.other-switch"),
        (IN_TC, with_netdev(host(), PF, port_name="p1"), "nic.other-switch"),
        (
            IN_TC,
            trial(True, errno.EOPNOTSUPP, "mlx5_core: Matching on TTL is not supported", in_words=True),
            "nic.match",
        ),
        (IN_TC, trial(True, errno.EOPNOTSUPP, "Operation not supported"), "nic.refused"),
        (IN_TC, trial(True, errno.ENOSPC, "No space left on device"), "nic.full"),
        (IN_TC, trial(True), "taken-now"),
        (line(), trial(False, errno.ENOENT, "TC classifier not found", in_words=True), "tc.refused"),
        (line(), trial(False), "taken-now"),
        (line("meter(1),eth1"), trial(False, -1, "no rule can be made of it: meter(1)"), "action.meter"),
        (line(), dataclasses.replace(host(), qdiscs=()), "port.no-qdisc"),
        (line(), host(), "tc.unexplained"),
    ],
)
def test_who_comes_first(text: str, where: Host, code: str) -> None:
    found = reason(text, where)
    assert found.code == code
    assert found.evidence


LOG = (
    "2024-01-01T00:00:00.000Z|00012|netdev_offload_tc|INFO|probe tc: supported ovs ct_state bits: 0x3f",
    "2024-01-01T00:00:00.000Z|00013|netdev_offload|INFO|eth1: No suitable flow API found.",
    "2024-01-01T00:00:01.000Z|00014|netdev_offload_tc(handler3)|DBG|something new isn't supported",
    "2024-01-01T00:00:01.000Z|00015|dpif_netlink(handler3)|DBG|failed to offload flow: Operation not supported: eth0",
    f"2024-01-01T00:00:01.000Z|00016|dpif_netlink(handler3)|DBG|system@ovs-system: put[create] ufid:{UFID} ",
)


def told(said: str) -> tuple[str, ...]:
    """A log in which the switch says that of the flow."""
    return (LOG[2].replace("something new isn't supported", said), *LOG[3:])


def test_the_log_is_evidence_and_the_last_resort() -> None:
    found = reason(line(), host(log=LOG))
    assert found.code == "tc.refused"
    assert "something new isn't supported" in found.found
    assert switch_log.ct_states(LOG) == 0x3F


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("couldn't get tc prio: No space left on device", "tc.no-priority"),
        ("Flow API provider mismatch between ingress (eth0) and egress (eth1) ports", "action.flow-api"),
        ("offloading attribute nw_tos isn't supported", "match.other"),
        ("unsupported put action type: 24", "action.other"),
        ("Tunnel options are in the wrong format.", "match.tunnel"),
        ("set action type 7 not supported on fragments due to checksum limitation", "action.set-fragment"),
        ("match for chain 5 failed due to non-existing goto chain action", "match.recirculation"),
        ("Can't find offloaded netdev for output port 3", "port.gone"),
    ],
)
def test_what_only_the_log_tells_has_its_code(said: str, code: str) -> None:
    assert reason(line(), host(log=told(said))).code == code


def test_the_log_decides_over_what_the_text_and_a_trial_tell() -> None:
    tried = dataclasses.replace(
        host(log=told("unsupported tunnel key attribute TP_SRC")), flow_trials=(FlowTrial(UFID, False),)
    )
    assert reason(SET_SOURCE, tried).code == "action.tunnel-option"
    several = line("trunc(64),eth1", before=META.replace("skb_mark(0/0)", "skb_mark(0x5/0xff)"))
    found = reason(several, host(log=told("unsupported put action type: 13")))
    assert (found.code, found.found, found.others) == ("action.truncate", "trunc(64)", ("match.skb-mark",))
    nd = line(key="eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=2001:db8::1)")
    assert reason(nd, host(log=told("offloading isn't supported, unknown attribute"))).code == "match.nd"


def test_the_log_of_ports_does_not_decide_as_they_may_have_changed() -> None:
    said = told("Flow API provider mismatch between ingress (eth0) and egress (eth1) ports")
    now = dataclasses.replace(host(log=said), flow_trials=(FlowTrial(UFID, False),))
    assert reason(line(), now).code == "taken-now"


def test_what_is_logged_once_is_kept_however_long_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVS_LOGDIR", str(tmp_path))
    more = [LOG[2].replace("00014", f"{number:05}") for number in range(switch_log.MOST + 5)]
    (tmp_path / "ovs-vswitchd.log").write_text("\n".join((*LOG[:2], *more)))
    kept = switch_log.relevant(None)
    assert kept[:2] == LOG[:2]
    assert len(kept) == switch_log.MOST + 2


def test_the_levels_of_the_log_file_are_read() -> None:
    text = "                 console    syslog    file\n                 -------    ------    ------\n"
    text += "dpif_netlink       OFF        ERR       INFO\nrconn              OFF        ERR       DBG\n"
    text += "tc                 OFF        ERR       DBG    (rate limiting disabled)\n"
    assert deep.log_levels(text) == {"dpif_netlink": "INFO", "tc": "DBG"}


def test_a_port_without_a_flow_api_is_known_from_the_log() -> None:
    found = reason(line("eth1"), host(log=LOG[:2]))
    assert found.code == "action.flow-api"
    later = LOG[1].replace("No suitable flow API found", "Assigned flow API 'linux_tc'")
    assert reason(line("eth1"), host(log=(*LOG[:2], later))).code == "tc.unexplained"
    none = dataclasses.replace(host(log=LOG[:2]), qdiscs=())
    assert reason(line(port="eth1"), none).code == "port.no-flow-api"


def test_a_port_of_the_datapath_that_is_no_device_here_is_elsewhere() -> None:
    ports = (DatapathPort(2, PF), DatapathPort(3, "eth0"), DatapathPort(9, "tap1", "internal"))
    said = "2026-11-29T09:00:00.000Z|00009|netdev_offload_tc(handler1)|ERR|flow_put: failed to get ifindex for tap1: No"
    where = host(datapath_ports=ports, log=(said,))
    coming = reason(line(port="tap1"), where)
    assert (coming.code, coming.found) == ("port.other-namespace", "tap1")
    assert [one.source for one in coming.evidence] == ["host", "log"]
    assert reason(line("tap1"), where).code == "port.other-namespace"
    assert reason(line("trunc(64),tap1"), where).code == "action.truncate"


def test_what_would_be_in_the_way_next_is_told_too() -> None:
    found = reason(
        line("trunc(64),userspace(pid=1,slow_path(lacp))", before=META.replace("skb_priority(0/0)", "skb_priority(0)"))
    )
    assert (found.code, found.others) == ("match.skb-priority", ("action.truncate", "action.slow-path"))


ARP = "eth_type(0x0806),arp(sip=10.0.0.1,tip=10.0.0.2,op=1,sha=00:00:00:00:00:00/00:00:00:00:00:00)"
SOLICIT = "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0),nd(target=2001:db8::1)"


def test_arp_and_neighbour_discovery_have_no_match_to_leave_out() -> None:
    where = trial(True, errno.EOPNOTSUPP, "mlx5_core: Unsupported key", in_words=True)
    arp = reason(line(key=ARP).replace("dp:ovs", "dp:tc"), where)
    assert (arp.code, arp.fix) == ("nic.match", NEIGHBOURS)
    assert (reason(line(key=SOLICIT)).code, reason(line(key=SOLICIT)).fix) == ("match.nd", NEIGHBOURS)
    assert reason(IN_TC, where).fix == REASONS["nic.match"].fix


def test_what_to_do_names_what_it_is_about() -> None:
    off = with_netdev(host(), "br-int")
    assert reason(IN_TC.replace("in_port(eth0)", "in_port(br-int)"), off).code == "port.internal"
    to_host = dataclasses.replace(off, netdevs=(*off.netdevs, Netdev(99, "br-int")))
    found = reason(IN_TC.replace(f"actions:{PF}", "actions:br-int"), to_host)
    assert found.code == "nic.to-host"
    assert found.fix.endswith("ovs-ofctl mod-port br-int br-int no-flood")
    legacy = with_netdev(host(), PF, switch_id=None)
    assert reason(IN_TC.replace("in_port(eth0)", f"in_port({PF})"), legacy).fix == f"asap2 host setup {PF}"
    assert reason(line(), host(offloaded_flows=None)).fix == "systemctl restart openvswitch-switch"
    assert not any("{" in reason(text).fix for _, text in REFUSED)


def test_without_a_switch_there_are_no_flows() -> None:
    with pytest.raises(Asap2Error, match="Open vSwitch is not running"):
        explain(host(running=False), [])


def test_flows_are_found_by_id_and_port() -> None:
    flows = [parse(line()), parse(line("eth1").replace(UFID, "bbbb" + UFID[4:]))]
    assert select(flows, "ufid:bbbb") == flows[1:]
    assert select(flows, "eth1") == flows[1:]
    assert select(flows, "eth0") == flows
    assert select(flows, "eth7") == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("mlx5_core: Requested chain is out of supported range", "nic.chain"),
        ("mlx5_core: Flow is not offloaded due to min inline setting", "nic.inline"),
        ("mlx5_core: vlan pop action is not supported", "nic.vlan"),
        ("mlx5_core: Unsupported key", "nic.match"),
        ("mlx5_core: matching on ct_state +rel isn't supported", "nic.ct-state"),
        ("mlx5_core: matching on ct_state +inv isn't supported", "nic.ct-state"),
        ("mlx5_core: offload of ct matching isn't available", "nic.ct"),
        ("mlx5_core: offload of ct action isn't available", "nic.ct"),
        ("mlx5_core: too many pedit actions, can't offload", "nic.rewrite"),
        ("mlx5_core: can't offload re-write of non TCP/UDP", "nic.rewrite"),
        ("mlx5_core: can't support more output ports, can't offload forwarding", "nic.outputs"),
        ("mlx5_core: devices are both uplink, can't offload forwarding", "nic.hairpin"),
        ("mlx5_core: devices are not on same switch HW, can't offload forwarding", "nic.other-switch"),
        ("mlx5_core: current firmware doesn't support split rule for port mirroring", "nic.mirror"),
        ("mlx5_core: Decap with goto isn't supported", "nic.tunnel"),
        ("mlx5_core: Offload not supported when peakrate/avrate/overhead is configured", "nic.meter"),
        ("TC offload is disabled on net device", "port.feature-off"),
        ("nfp: something else entirely", "nic.refused"),
    ],
)
def test_a_drivers_words_have_a_code(words: str, code: str) -> None:
    assert nic.code(FlowTrial(UFID, True, errno.EOPNOTSUPP, words, True)) == code


def test_what_is_refused_without_a_word_is_told_by_what_is_taken_without_it() -> None:
    silent = FlowTrial(UFID, True, errno.EOPNOTSUPP, "Operation not supported", False, ("match flags",))
    assert nic.code(silent) == "nic.match"
    policed = FlowTrial(UFID, True, errno.EOPNOTSUPP, "Operation not supported", False, ("action police",))
    assert nic.code(policed) == "nic.meter"
    assert nic.code(dataclasses.replace(silent, culprits=("action vlan",))) == "nic.vlan"
    assert "without match flags it is taken" in nic.words(silent)
    assert nic.code(dataclasses.replace(silent, culprits=("action pedit and action mirred",))) == "nic.rewrite"
