# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shlex

import pytest

from asap2.errors import Asap2Error
from asap2.ovn import programs
from asap2.ovn.programs import Chassis, lacking, northbound, plug, southbound, start_central


def test_a_chassis_is_told_where_its_central_is_and_how_tunnels_reach_it() -> None:
    chassis = Chassis("hv1", "10.57.255.1", "10.57.255.2", "vxlan", {"physnet1": "br-ex", "other": "br-other"})
    words = shlex.split(chassis.start()[0])
    assert words[:4] == ["ovs-vsctl", "set", "Open_vSwitch", "."]
    said = dict(word.removeprefix("external_ids:").split("=", 1) for word in words[4:])
    assert said["ovn-remote"] == southbound("10.57.255.1") == "tcp:10.57.255.1:6642"
    assert (said["system-id"], said["ovn-encap-type"], said["ovn-encap-ip"]) == ("hv1", "vxlan", "10.57.255.2")
    assert said["ovn-bridge-mappings"] == "physnet1:br-ex,other:br-other"


def test_the_databases_of_a_central_listen_where_chassis_and_clients_look_for_them() -> None:
    ctl, *listen = start_central()
    assert ctl.split() == [programs.CTL, "start_northd"]
    ports = [line.rpartition(":")[2] for line in listen]
    assert [f"tcp:10.57.255.1:{port}" for port in ports] == [northbound("10.57.255.1"), southbound("10.57.255.1")]


def test_without_physical_networks_there_is_no_mapping() -> None:
    assert "ovn-bridge-mappings" not in Chassis("hv1", "10.57.255.1", "10.57.255.2").external_ids()


def test_what_a_cloud_adds_is_told_too() -> None:
    chassis = Chassis("hv1", "1.1.1.1", "1.1.1.2", more={"ovn-cms-options": "enable-chassis-as-gw"})
    assert chassis.external_ids()["ovn-cms-options"] == "enable-chassis-as-gw"


def test_a_representor_is_plugged_into_the_integration_bridge() -> None:
    assert plug("eth3", "p1")[0] == (
        "ovs-vsctl --may-exist add-port br-int eth3 -- set Interface eth3 external_ids:iface-id=p1"
    )


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "NEEDED", ("/nowhere/ovn-ctl",))
    with pytest.raises(Asap2Error, match=r"/nowhere/ovn-ctl is missing.*make setup-ovn"):
        lacking()
