# SPDX-License-Identifier: Apache-2.0
"""What was refused, from the switch's log and the database."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from asap2.host.check.finding import Verdict
from asap2.host.check.switch import CHECKS
from asap2.host.inventory import Bridge, DatapathPort, Host, Interface, Port, Remote
from asap2.host.openvswitch import bridges, openflow_figures, remote
from asap2.host.refused import RECENT, Refused, refused
from tests.unit.host.hosts import offloading, with_switch

AT = "2024-01-01T00:00:00"
REPLY = (
    "2023-12-31T23:59:{}Z|00068|connmgr|INFO|br-int<->unix#21: sending OFPBAC_BAD_OUT_GROUP error reply to {} message"
)
KEY = "recirc_id(0),in_port(2),eth(src=00:00:00:00:00:00/00:00:00:00:00:00),eth_type(0x0800), actions:ct(helper=ftp)"
PUT = (
    "2023-12-31T23:59:10.550Z|00148|dpif({})|WARN|system@ovs-system: failed to put[create] (Invalid argument)"
    " ufid:{} {}"
)
DEAD = Remote("tcp:127.0.0.1:6653", False, "BACKOFF", "Connection refused", 77)


def logged(*log: str, **changes: object) -> Host:
    """A host with that log."""
    ports = (DatapathPort(2, "eth0"),)
    host = with_switch(offloading(), log=log, datapath_ports=ports, **changes)
    return dataclasses.replace(host, taken=f"{AT}+00:00")


def findings(host: Host) -> dict[str, Verdict]:
    """The worst of each check of the switch that found something."""
    found = [one for check in CHECKS for one in check(host, host.pfs)]
    return {one.id: one.verdict for one in found if one.verdict is not Verdict.OK}


def test_openflow_messages_that_the_switch_rejected_are_counted() -> None:
    log = (REPLY.format("01.000", "OFPT_FLOW_MOD"), REPLY.format("02.000", "OFPT_FLOW_MOD"))
    host = logged(*log)
    assert refused(host) == [
        Refused("openflow.refused", "br-int", "OFPT_FLOW_MOD: OFPBAC_BAD_OUT_GROUP", 2, log[1]),
    ]
    assert findings(host) == {"openflow.refused": Verdict.WARN}


@pytest.mark.parametrize(
    "message", ["OFPT_BUNDLE_CONTROL", "OFPT_BUNDLE_ADD_MESSAGE", "OFPT_GROUP_MOD", "OFPT_METER_MOD"]
)
def test_whatever_changes_something_counts(message: str) -> None:
    assert [one.code for one in refused(logged(REPLY.format("01.000", message)))] == ["openflow.refused"]


@pytest.mark.parametrize("message", ["OFPST_TABLE_FEATURES request", "OFPT_ROLE_REQUEST", "OFPT_HELLO"])
def test_a_question_that_the_switch_does_not_know_is_none(message: str) -> None:
    assert refused(logged(REPLY.format("01.000", message))) == []


def test_flows_that_the_datapath_does_not_take_are_told_each_once_with_their_port() -> None:
    lines = (PUT.format("handler1", "1-2", KEY), PUT.format("handler2", "1-2", KEY), PUT.format("handler1", "1-3", KEY))
    host = logged(*lines)
    one, other = refused(host)
    assert (one.code, one.about, one.found, one.times) == ("datapath.refused", "eth0", f"Invalid argument: {KEY}", 2)
    assert one.evidence.endswith("ufid:1-2")
    assert other.times == 1
    assert findings(host) == {"datapath.refused": Verdict.FAIL}


def test_a_flow_that_was_taken_since_is_not_refused() -> None:
    taken = f"ufid:1-2, {KEY.replace(', actions', ', packets:1, actions')}"
    assert refused(logged(PUT.format("handler1", "1-2", KEY), datapath_flows=(taken,))) == []


def test_what_was_long_ago_does_not_count_nor_does_a_line_without_a_time() -> None:
    host = logged(PUT.format("handler1", "1-2", KEY), f"Jan 1 00:00 {REPLY.format('01.000', 'OFPT_FLOW_MOD')}"[6:])
    late = dataclasses.replace(host, taken=f"2024-01-01T00:{RECENT // 60:02}:00+00:00")
    assert [one.code for one in refused(host)] == ["datapath.refused"]
    assert refused(late) == []


def with_bridge(**changes: object) -> Host:
    """A host with one bridge more."""
    host = offloading()
    bridge = dataclasses.replace(Bridge("br-x"), **changes)  # type: ignore[arg-type]
    return with_switch(host, bridges=(*host.openvswitch.bridges, bridge))


def test_a_controller_that_is_not_reached_is_told_with_what_follows() -> None:
    secure = with_bridge(controllers=(DEAD,), fail_mode="secure", flows=4)
    (one,) = refused(secure)
    assert (one.code, one.about) == ("controller.unreachable", "br-x")
    assert one.found == (
        "tcp:127.0.0.1:6653 is not connected for 77 s (backoff, Connection refused); fail_mode secure: its rules stay"
        " as they are, and none are added"
    )
    assert findings(secure) == {"ovs.controllers": Verdict.FAIL}
    assert findings(with_bridge(controllers=(DEAD,))) == {"ovs.controllers": Verdict.WARN}


@pytest.mark.parametrize("there", [Remote("tcp:127.0.0.1:6653", True), Remote("ptcp:6653")], ids=["connected", "waits"])
def test_a_controller_that_is_reached_or_waited_for_is_no_finding(there: Remote) -> None:
    host = with_bridge(controllers=(there,), fail_mode="secure", flows=4)
    assert refused(host) == []
    assert findings(host) == {}
    assert refused(with_bridge(controllers=(there, DEAD), fail_mode="secure", flows=4)) == []  # one is enough


def test_a_bridge_that_drops_everything_is_told() -> None:
    host = with_bridge(fail_mode="secure", flows=0)
    assert [one.code for one in refused(host)] == ["bridge.empty"]
    assert findings(host) == {"ovs.fail-mode": Verdict.FAIL}
    assert refused(with_bridge(fail_mode="secure")) == []  # nobody counted


def test_interfaces_in_error_are_told() -> None:
    port = Port("gone", interfaces=(Interface("gone", error="could not open network device gone (No such device)"),))
    (one,) = refused(with_bridge(ports=(port,)))
    assert (one.code, one.about) == ("port.error", "gone")


def test_a_manager_that_is_not_reached_is_a_warning() -> None:
    assert findings(with_switch(offloading(), managers=(DEAD,))) == {"ovs.managers": Verdict.WARN}


def test_controllers_are_read_from_the_database() -> None:
    row = {
        "_uuid": ["uuid", "c"],
        "target": "tcp:127.0.0.1:6653",
        "is_connected": False,
        "status": ["map", [["last_error", "Connection refused"], ["state", "BACKOFF"], ["sec_since_disconnect", "77"]]],
    }
    assert remote(row) == DEAD
    bridge = {
        "_uuid": ["uuid", "b"],
        "name": "br-x",
        "datapath_type": "",
        "ports": ["set", []],
        "fail_mode": "secure",
        "controller": ["uuid", "c"],
    }
    tables: dict[str, list[dict[str, Any]]] = {"Bridge": [bridge], "Controller": [row]}
    (found,) = bridges(tables)
    assert (found.fail_mode, found.controllers) == ("secure", (DEAD,))


def test_rules_that_the_switch_makes_for_itself_are_not_counted() -> None:
    text = """\
duration=51s, n_packets=0, n_bytes=0, priority=180008,tcp,nw_src=127.0.0.1,tp_src=6653,actions=NORMAL
duration=51s, n_packets=0, n_bytes=0, priority=65535,ct_state=+trk,actions=NORMAL
table_id=254, duration=1713s, n_packets=0, n_bytes=0, priority=2,recirc_id=0,actions=drop
"""
    assert openflow_figures(text) == (1, 1)
