# SPDX-License-Identifier: Apache-2.0
"""A NIC and its functions: names, addresses and limits that follow from the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from asap2.nic.function import Nic, factory_mac
from tests.unit.nic.backend import nic

PF = "0000:03:00.0"


def test_one_port_is_named_by_its_place_and_has_a_steady_mac() -> None:
    first, second = nic(), nic()
    assert [(pf.bdf, pf.netdev) for pf in first.pfs] == [(PF, "enp3s0f0")]
    assert first.pfs[0].mac == second.pfs[0].mac == factory_mac("/nics/0")
    assert first.pfs[0].mac[:3] == bytes.fromhex("ec0d9a")


def test_two_ports_have_their_own_functions_macs_and_vf_addresses() -> None:
    card = nic(ports=2, total_vfs=4)
    assert [pf.netdev for pf in card.pfs] == ["enp3s0f0", "enp3s0f1"]
    assert card.pfs[1].mac[5] == card.pfs[0].mac[5] + 1
    assert [card.pfs[0].vf_bdf(i) for i in (0, 3)] == ["0000:03:00.2", "0000:03:00.5"]
    assert [card.pfs[1].vf_bdf(i) for i in (0, 3)] == ["0000:03:00.6", "0000:03:01.1"]
    assert [pf.vf_offset for pf in card.pfs] == [2, 5]


def test_vfs_beyond_function_255_are_on_the_next_bus() -> None:
    card = nic()
    card.total_vfs = 300
    assert card.pfs[0].vf_bdf(253) == "0000:03:1f.7"
    assert card.pfs[0].vf_bdf(254) == "0000:04:00.0"


def test_the_bus_number_in_a_name_is_decimal() -> None:
    assert nic(pci="0000:81:00.0").pfs[0].netdev == "enp129s0f0"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "ConnectX-3"}, "no NIC model 'ConnectX-3'"),
        ({"pci": "0000:03:00.1"}, "not the address of a function 0"),
        ({"pci": "3:00.0"}, "not the address of a function 0"),
        ({"ports": 3}, "1 or 2 ports"),
        ({"total_vfs": 128}, "at most 127 VFs"),
        ({"total_vfs": -1}, "at most 127 VFs"),
    ],
)
def test_a_wrong_configuration_is_refused_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    config = {"name": "n", "model": "ConnectX-5", "pci": PF, "ports": 1, "total_vfs": 8, "netns": "x"}
    with pytest.raises(ValueError, match=sentence):
        Nic.configured({**config, **change})


def test_the_room_for_rules_is_the_models_unless_said() -> None:
    config = {"name": "n", "model": "ConnectX-5", "pci": PF, "ports": 1, "total_vfs": 8, "netns": "x"}
    assert Nic.configured(config).model.max_rules == 262144
    assert Nic.configured({**config, "rules": 300}).model.max_rules == 300
