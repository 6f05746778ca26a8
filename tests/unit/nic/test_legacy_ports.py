# SPDX-License-Identifier: Apache-2.0
"""What the pipeline's ports and the netdevs' links are, in both modes."""

from __future__ import annotations

import pytest

from asap2.nic import eswitch, legacy
from asap2.nic.eswitch import End
from asap2.nic.function import EswitchMode
from asap2.nic.port_ids import pf_port, representor_port, vf_port, wire_port
from asap2.nic.silicon.ports import Deliver, Miss, Port, PortKind
from tests.unit.nic.legacy_lab import Lab, LinkState


def ports(lab: Lab, **more: End) -> dict[str, Port]:
    ends = {**lab.ends(), **more}
    return eswitch.ports(lab.pf, ends, eswitch.legacy_switch(lab.pf, ends))


@pytest.fixture
def switchdev() -> Lab:
    lab = Lab(vfs=2)
    lab.pf.mode = EswitchMode.SWITCHDEV
    for vf in lab.pf.vfs:
        vf.link_state = LinkState.ENABLE
    return lab


def test_in_switchdev_mode_a_miss_goes_to_the_representor_and_back(switchdev: Lab) -> None:
    found = ports(switchdev, pf0rep0=End(20))
    assert switchdev.switch() is None
    vf, representor = found["pf0vf0"], found["pf0rep0"]
    assert (vf.tables, vf.miss, vf.miss_port) == ((0,), Miss.REDIRECT, representor_port(0, 0))
    assert (representor.tables, representor.miss, representor.miss_port) == ((), Miss.REDIRECT, vf_port(0, 0))
    assert found["pf0vf1"].miss is Miss.DROP  # its representor is gone
    assert (found["pf0"].kind, found["pf0"].tables, found["pf0"].miss_port) == (
        PortKind.UPLINK_REP,
        (),
        wire_port(0),
    )
    assert (found["p0"].tables, found["p0"].miss_port, found["p0"].peer_any) == ((0,), pf_port(0), True)


def test_in_switchdev_mode_a_vfs_link_is_its_representors(switchdev: Lab) -> None:
    switchdev.cable = False
    switchdev.vf(1).link_state = LinkState.DISABLE
    assert eswitch.links(switchdev.pf, switchdev.ends()) == {"pf0": False, "pf0vf0": True, "pf0vf1": False}
    found = ports(switchdev)
    assert (found["pf0vf0"].enabled, found["pf0vf1"].enabled) == (True, False)


def test_what_was_set_in_legacy_mode_does_nothing_in_switchdev_mode(switchdev: Lab) -> None:
    before = ports(switchdev, pf0rep0=End(20))
    switchdev.vf(0).vlan, switchdev.vf(0).spoofchk = 57, True
    assert ports(switchdev, pf0rep0=End(20)) == before


def test_in_legacy_mode_every_packet_meets_the_database_or_first_the_access_list() -> None:
    lab = Lab(vfs=2)
    lab.vf(1).spoofchk = True
    found = ports(lab)
    assert {name: port.tables for name, port in found.items()} == {
        "pf0": (legacy.FDB,),
        "p0": (legacy.FDB,),
        "pf0vf0": (legacy.FDB,),
        "pf0vf1": (legacy.ACL,),
    }


@pytest.mark.parametrize(
    ("state", "cable", "up"),
    [
        (LinkState.AUTO, True, True),
        (LinkState.AUTO, False, False),
        (LinkState.ENABLE, False, True),
        (LinkState.DISABLE, True, False),
    ],
)
def test_in_legacy_mode_a_vfs_link_is_the_administrators_or_the_cables(state: LinkState, cable: bool, up: bool) -> None:
    lab = Lab(vfs=1, cable=cable)
    lab.vf(0).link_state = state
    assert eswitch.links(lab.pf, lab.ends()) == {"pf0": cable, "pf0vf0": up}
    assert ports(lab)["pf0vf0"].enabled is up


def test_without_a_cable_the_pf_has_no_carrier() -> None:
    lab = Lab(vfs=0)
    ends = {"pf0": End(1)}
    assert eswitch.links(lab.pf, ends) == {"pf0": False}
    assert eswitch.ports(lab.pf, ends, None)["pf0"].miss is Miss.DROP


def test_nothing_is_said_of_what_is_not_there() -> None:
    lab = Lab(vfs=2)
    assert eswitch.ports(lab.pf, {}, eswitch.legacy_switch(lab.pf, {})) == {}
    assert eswitch.links(lab.pf, {}) == {}


@pytest.mark.parametrize(("here", "deliver"), [(False, Deliver.PEER), (True, Deliver.EGRESS)])
def test_a_cable_between_two_ports_of_one_nic_is_sent_on(switchdev: Lab, here: bool, deliver: Deliver) -> None:
    """The kernel hands a packet over only to a peer in another network namespace."""
    found = ports(switchdev, p0=End(21, here=here))
    assert (found["p0"].deliver, found["pf0"].deliver) == (deliver, Deliver.PEER)
