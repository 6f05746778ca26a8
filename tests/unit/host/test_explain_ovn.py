# SPDX-License-Identifier: Apache-2.0
"""OVN's logical flows behind a datapath flow, with a southbound database and a switch that answer from tables."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest

from asap2.host.explain import ovn
from asap2.host.explain.explain import explain
from asap2.host.explain.flow import parse
from asap2.host.explain.ovn import Step, key, steps, traced
from asap2.host.inventory import Host
from asap2.host.openvswitch import SilentError, SwitchError
from tests.unit.host.flow_texts import UFID, host, line

TRACE = """Flow: tcp,in_port=1

bridge("br-int")
----------------
 0. in_port=1, priority 100, cookie 0xc38f2077
    set_field:0x1->metadata
    resubmit(,8)
 8. metadata=0x1, priority 50, cookie 0xef093bdb
    resubmit(,20)
20. ct_state=+new+trk,tcp,metadata=0x1,nw_dst=30.0.0.2,tp_dst=80, priority 120, cookie 0xaf0926c
    group:1
     -> no live bucket
    resubmit(,9)
     9. metadata=0x3, priority 0, cookie 0xcb0818c7
37. priority 0
    drop

Final flow: tcp,in_port=1
Datapath actions: hash(l4(0)),recirc(0x14)

recirc(0x14) - resume conntrack
 0. in_port=1, priority 1, cookie 0x11111111
"""
"""As ofproto/trace prints it."""
ROWS: dict[str, list[dict[str, Any]]] = {
    "Logical_Flow": [
        {
            "_uuid": ["uuid", "0af0926c-0000-4000-8000-000000000001"],
            "pipeline": "ingress",
            "table_id": 12,
            "priority": 120,
            "match": "ct.new && ip4.dst == 30.0.0.2",
            "actions": "ct_lb_mark(backends=10.0.1.13:80);",
            "external_ids": ["map", [["stage-name", "ls_in_lb"]]],
        },
        {
            "_uuid": ["uuid", "cb0818c7-0000-4000-8000-000000000002"],
            "pipeline": "ingress",
            "table_id": 1,
            "priority": 0,
            "match": "1",
            "actions": "next;",
            "external_ids": ["map", [["stage-name", "lr_in_lookup_neighbor"]]],
        },
        {"_uuid": ["uuid", "22222222-0000-4000-8000-000000000003"]},
    ],
    "Port_Binding": [{"_uuid": ["uuid", "c38f2077-0000-4000-8000-000000000004"], "logical_port": "vm1"}],
    "Datapath_Binding": [
        {"tunnel_key": 1, "external_ids": ["map", [["name", "sw0"]]]},
        {"tunnel_key": 3, "external_ids": ["map", [["name", "r0"]]]},
    ],
}


class Reply(NamedTuple):
    """Of JSON-RPC."""

    result: list[Any]
    error: Any = None


def answer(_remote: str, _daemon: str, _method: str, parameters: list[Any], _patience: float) -> tuple[int, Reply]:
    """What the southbound database answers to selects."""
    database, *operations = parameters
    assert database == "OVN_Southbound"

    def rows(operation: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = [where[2] for where in operation["where"]]
        found = [row for row in ROWS[operation["table"]] if not wanted or row["_uuid"] in wanted]
        return [{name: row[name] for name in operation["columns"]} for row in found]

    return 0, Reply([{"rows": rows(operation)} for operation in operations])


@pytest.fixture
def flow() -> Any:
    """Of vm1 to a load balancer."""
    return parse(line("hash(l4(0)),recirc(0x14)"))


@pytest.fixture
def chassis(monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host of OVN, whose southbound database answers."""
    made = host()
    monkeypatch.setattr(ovn, "ask", lambda *_words: TRACE)
    monkeypatch.setattr(ovn.Southbound.__init__, "__defaults__", (answer,))
    switch = dataclasses.replace(made.openvswitch, ovn_remote="tcp:10.57.255.1:6642")
    return dataclasses.replace(made, openvswitch=switch)


def test_the_rules_of_a_packet_are_read_with_the_datapath_that_it_is_in() -> None:
    assert steps(TRACE) == (
        Step("c38f2077", 0),
        Step("ef093bdb", 1),
        Step("0af0926c", 1),
        Step("cb0818c7", 3),
    )


def test_the_key_of_a_flow_is_what_stands_before_its_figures() -> None:
    flow = parse("ufid:1-2, recirc_id(0),in_port(eth0),key32(00 00/00 00),eth_type(0x86dd), packets:1, actions:eth1")
    assert key(flow) == "recirc_id(0),in_port(eth0),eth_type(0x86dd)"


def test_the_logical_flows_and_ports_behind_a_flow_are_named(chassis: Host, flow: Any) -> None:
    (explained,) = explain(traced(chassis, [flow]), [flow])
    path = explained.logical
    assert path is not None
    assert (path.ufid, path.ports) == (UFID, ("vm1",))
    assert [str(one) for one in path.flows if not one.is_plain] == [
        "sw0 ls_in_lb (ingress 12, priority 120): ct.new && ip4.dst == 30.0.0.2 → ct_lb_mark(backends=10.0.1.13:80);"
    ]
    assert [(one.datapath, one.stage) for one in path.flows if one.is_plain] == [("r0", "lr_in_lookup_neighbor")]


def test_a_host_without_ovn_is_not_asked(flow: Any) -> None:
    made = host()
    assert traced(made, [flow]) is made


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lambda *_: (111, None), "tcp:10.57.255.1:6642: Connection refused"),
        (lambda *_: (-1, None), "tcp:10.57.255.1:6642: it closed the connection"),
        (lambda *_: (0, Reply([], "no such database")), "tcp:10.57.255.1:6642: it refused to be read"),
    ],
)
def test_a_database_that_does_not_answer_is_one_sentence(
    chassis: Host, flow: Any, monkeypatch: pytest.MonkeyPatch, error: Any, said: str
) -> None:
    monkeypatch.setattr(ovn.Southbound.__init__, "__defaults__", (error,))
    found = traced(chassis, [flow])
    assert (found.logical, found.logical_trouble) == ((), said)


def test_a_database_that_is_silent_is_told(chassis: Host, flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: Any) -> Any:
        raise SilentError("ovsdb-server")

    monkeypatch.setattr(ovn.Southbound.__init__, "__defaults__", (silent,))
    assert traced(chassis, [flow]).logical_trouble == "tcp:10.57.255.1:6642: no answer within 5 s"


def test_one_of_several_databases_is_enough(chassis: Host, flow: Any) -> None:
    switch = dataclasses.replace(chassis.openvswitch, ovn_remote="ssl:10.57.255.9:6642, tcp:10.57.255.1:6642")
    found = traced(dataclasses.replace(chassis, openvswitch=switch), [flow])
    assert found.logical_trouble is None
    assert len(found.logical) == 1


def test_a_flow_that_cannot_be_traced_is_left_out(chassis: Host, flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> str:
        raise SwitchError("unknown recirc_id")

    monkeypatch.setattr(ovn, "ask", refuse)
    assert traced(chassis, [flow]) is chassis
