# SPDX-License-Identifier: Apache-2.0
"""What Open vSwitch says, as read: rows by OVSDB's protocol, figures from what its commands print."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.host import openvswitch
from asap2.host.check.audit import audit
from asap2.host.explain.explain import explain
from asap2.host.openvswitch import SilentError, bridges, lookups, openflow_figures, upcall_figures, value
from asap2.host.setup.target import RefusedError, setup_target
from asap2.host.setup.wanted import Wanted
from tests.unit.host.hosts import offloading, with_switch

UPCALL_SHOW = """system@ovs-system:
  flows         : (current 4) (avg 0) (max 0) (limit 10000)
  offloaded flows : 9
  dump duration : 18ms
  ufid enabled : true

  3: (keys 9)
"""
DPCTL_SHOW = """system@ovs-system:
  lookups: hit:1684 missed:1465 lost:2
  flows: 0
  masks: hit:8420 total:1 hit/pkt:2.67
  port 0: ovs-system (internal)
"""


def test_flows_offloaded_or_not() -> None:
    assert upcall_figures(UPCALL_SHOW) == (4, 9)
    assert upcall_figures(UPCALL_SHOW.replace("  offloaded flows : 9\n", "")) == (4, None)
    assert upcall_figures("") == (0, None)


def test_lookups() -> None:
    assert lookups(DPCTL_SHOW) == (1684, 1465, 2)
    assert lookups("") is None


def test_rules_with_connection_tracking_are_counted() -> None:
    rules = (
        "duration=9s, n_packets=0, n_bytes=0, priority=0,actions=NORMAL\n"
        "table_id=1, duration=9s, n_packets=0, priority=9,ip,actions=ct(table=2)\n"
        "table_id=2, duration=9s, n_packets=0, ct_state=+est+trk,ip,actions=output:2\n"
    )
    assert openflow_figures(rules) == (3, 2)


def test_columns_become_plain_python() -> None:
    assert value(["set", []]) == []
    assert value(["map", [["a", 1]]]) == {"a": 1}
    assert value(["uuid", "x"]) == "x"
    assert value(["set", [["uuid", "x"]]]) == ["x"]
    assert value(5) == 5


def test_bridges_are_put_together_and_secrets_left_out() -> None:
    tables: dict[str, list[dict[str, Any]]] = {
        "Open_vSwitch": [{"_uuid": ["uuid", "o"]}],
        "Bridge": [
            {
                "_uuid": ["uuid", "b"],
                "name": "br0",
                "datapath_type": "system",
                "ports": ["set", [["uuid", "p"]]],
                "fail_mode": ["set", []],
                "controller": ["set", []],
            }
        ],
        "Port": [
            {
                "_uuid": ["uuid", "p"],
                "name": "vx",
                "tag": 57,
                "vlan_mode": ["set", []],
                "interfaces": ["uuid", "i"],
            }
        ],
        "Interface": [
            {
                "_uuid": ["uuid", "i"],
                "name": "vx",
                "type": "vxlan",
                "error": ["set", []],
                "ofport": 3,
                "options": ["map", [["key", "7"], ["psk", "secret"], ["remote_ip", "10.0.0.2"]]],
                "external_ids": ["map", [["iface-id", "a"], ["token", "secret"]]],
            }
        ],
    }
    (bridge,) = bridges(tables)
    (port,) = bridge.ports
    (interface,) = port.interfaces
    assert (bridge.name, port.tag, port.vlan_mode, interface.ofport, interface.error) == ("br0", 57, None, 3, None)
    assert interface.options == (("key", "7"), ("remote_ip", "10.0.0.2"))
    assert interface.external_ids == (("iface-id", "a"),)


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A run directory of daemons that take a connection, and never answer."""
    monkeypatch.setenv("OVS_RUNDIR", str(tmp_path))
    monkeypatch.setattr(openvswitch, "PATIENCE", 0.02)
    monkeypatch.setattr(openvswitch, "switch_pid", os.getpid)
    listening = []
    for name in ("db.sock", f"ovs-vswitchd.{os.getpid()}.ctl"):
        listening.append(socket.socket(socket.AF_UNIX))
        listening[-1].bind(str(tmp_path / name))
        listening[-1].listen()
    yield tmp_path
    for one in listening:
        one.close()


def test_a_daemon_that_does_not_answer_is_not_waited_for(hanging: Path) -> None:
    with pytest.raises(SilentError, match="ovs-vswitchd did not answer within"):
        openvswitch.ask("upcall/show")
    found = openvswitch.observe()
    assert (found.silent, found.database, found.running) == ("ovsdb-server", False, False)
    (hanging / "db.sock").unlink()
    assert openvswitch.observe().silent is None


def test_who_does_not_answer_is_told_in_a_sentence() -> None:
    host = with_switch(offloading(), running=False, silent="ovs-vswitchd", service="openvswitch-switch")
    restart = "`systemctl restart openvswitch-switch` restarts it"
    with pytest.raises(RefusedError, match=f"ovs-vswitchd does not answer; {restart}"):
        setup_target(host, Wanted())
    with pytest.raises(Exception, match=f"ovs-vswitchd does not answer, so its flows are not known; {restart}"):
        explain(host, [])
    (finding,) = [one for one in audit(host, ()) if one.id == "ovs.running"]
    assert finding.found == "ovs-vswitchd is running but does not answer"
    assert finding.fix == "systemctl restart openvswitch-switch"
