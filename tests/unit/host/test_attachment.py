# SPDX-License-Identifier: Apache-2.0
"""`asap2 host explain` names whose ports a flow is from and to."""

from __future__ import annotations

import dataclasses

import pytest

from asap2.cli.host_explain import show
from asap2.host.attachment import Attachment
from asap2.host.explain.explain import explain
from asap2.host.explain.flow import parse
from asap2.host.inventory import Host, Interface
from tests.unit.host.flow_texts import host, line


def with_server() -> Host:
    """A host with a server's port behind eth0, and nothing told of eth1."""
    made = host()
    ids = (("attached-mac", "fa:16:3e:b9:b8:ce"), ("iface-id", "p-7"), ("iface-status", "active"), ("vm-uuid", "s-1"))
    (bridge,) = made.openvswitch.bridges
    ports = tuple(
        dataclasses.replace(one, interfaces=(Interface("eth0", external_ids=ids),)) if one.name == "eth0" else one
        for one in bridge.ports
    )
    switch = dataclasses.replace(made.openvswitch, bridges=(dataclasses.replace(bridge, ports=ports),))
    return dataclasses.replace(made, openvswitch=switch)


@pytest.mark.parametrize("text", [line("eth1", port="eth0"), line("eth0", port="eth1")])
def test_a_flow_is_told_with_its_server_and_port(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = with_server()
    found = explain(made, [parse(text)])
    assert found[0].attachments == (Attachment("eth0", "p-7", "s-1", "fa:16:3e:b9:b8:ce", "active"),)
    show(made, found, False, None)
    assert "eth0: server s-1, port p-7 (fa:16:3e:b9:b8:ce, active)\n" in capsys.readouterr().out


def test_where_open_vswitch_does_not_tell_nobody_is_named() -> None:
    assert explain(host(), [parse(line())])[0].attachments == ()
