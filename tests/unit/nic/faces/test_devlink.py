# SPDX-License-Identifier: Apache-2.0
"""devlink's handlers, called as the server calls them."""

from __future__ import annotations

import contextlib
import errno
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.request import GenlHeader, Message, Reply
from asap2.netlink.server import Server
from asap2.netlink.tables.devlink import (
    DEVLINK,
    DEVLINK_ATTRS,
    DEVLINK_CMD_ESWITCH_SET,
    DEVLINK_CMD_GET,
    DEVLINK_CMD_HEALTH_REPORTER_GET,
    DEVLINK_CMD_NEW,
    DEVLINK_CMD_PARAM_SET,
    DEVLINK_CMD_PORT_DEL,
    DEVLINK_CMD_PORT_GET,
    DEVLINK_CMD_PORT_NEW,
    DEVLINK_CMD_PORT_SET,
    DEVLINK_CMD_RATE_DEL,
    DEVLINK_CMD_RATE_GET,
    DEVLINK_CMD_RATE_NEW,
    DEVLINK_CMD_RATE_SET,
    DEVLINK_CMD_RELOAD,
)
from asap2.netlink.wire import NLM_F_DUMP, NetlinkError
from asap2.nic.device import Driver
from asap2.nic.faces.devlink.face import DEVLINK_CMD_DEL, DevlinkFace
from asap2.nic.function import EswitchMode
from tests.unit.nic.backend import ListedNetDevs, RecordingBackend, booted, nic, refused
from tests.unit.nic.faces.faces import StillServer, request

PF = "0000:03:00.0"
HANDLE = {"bus_name": "pci", "dev_name": PF}


class Served:
    """devlink of a driver."""

    def __init__(self, driver: Driver, backend: RecordingBackend) -> None:
        self.driver, self.backend = driver, backend
        self.server = StillServer()
        self.netdevs = ListedNetDevs(driver)
        self.face = DevlinkFace(cast(Server, self.server), driver, self.netdevs)
        self.family = self.server.families["devlink"]

    def ask(self, command: int, attrs: Any, flags: int = 0, cookie: int = 1) -> list[dict[Any, Any]]:
        """The attributes of each message of the answer."""
        body = attrs if isinstance(attrs, bytes) else DEVLINK_ATTRS.encode(attrs)
        header = GenlHeader(command, 1, b"", body)
        answer = self.family.handlers[command](request(self.family.id, b"", flags, cookie), header)
        messages = answer.messages if isinstance(answer, Reply) else cast(list[Message], answer or [])
        return [DEVLINK.decode(message.payload)[1] for message in messages]

    def told(self) -> list[tuple[int, str, int | None]]:
        """What the group was told since the last time: command, device, port."""
        sent, self.server.sent = self.server.sent, []
        messages = [DEVLINK.decode(payload) for _, _, payload in sent]
        return [(header.cmd, attrs["dev_name"], attrs.get("port_index")) for header, attrs in messages]


@pytest.fixture
def served() -> Served:
    return Served(*booted())


def test_every_command_that_is_announced_is_served(served: Served) -> None:
    assert {command for command, _ in served.family.ops} == set(served.family.handlers)


def test_port_attributes_are_in_the_kernels_order(served: Served) -> None:
    served.driver.set_numvfs(PF, 1)
    served.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    uplink, representor, vf = served.ask(DEVLINK_CMD_PORT_GET, {}, NLM_F_DUMP)
    netdev = ["bus_name", "dev_name", "port_index", "port_type", "port_netdev_ifindex", "port_netdev_name"]
    flavour = ["port_splittable", "port_flavour"]
    of_a_vf = ["port_controller_number", "port_pci_pf_number", "port_pci_vf_number", "port_external", "port_function"]
    assert list(representor) == netdev + flavour + of_a_vf
    assert list(uplink) == [*netdev, *flavour, "port_number"]
    assert list(vf) == netdev + flavour
    assert [port["port_index"] for port in (uplink, representor, vf)] == [0xFFFF, 1, 1 << 16]


def test_a_vfs_port_has_no_netdev_while_that_is_elsewhere(served: Served) -> None:
    served.driver.set_numvfs(PF, 1)
    served.netdevs.away.add("enp3s0f0v0")
    vf = served.ask(DEVLINK_CMD_PORT_GET, {**HANDLE, "dev_name": "0000:03:00.2", "port_index": 1 << 16})[0]
    assert (vf["port_type"], "port_netdev_name" in vf) == (2, False)


@pytest.mark.parametrize(
    ("command", "attrs", "number"),
    [
        (DEVLINK_CMD_GET, {}, errno.EINVAL),
        (DEVLINK_CMD_GET, {"bus_name": "pci"}, errno.EINVAL),
        (DEVLINK_CMD_GET, {**HANDLE, "dev_name": "0000:03:00.7"}, errno.ENODEV),
        (DEVLINK_CMD_GET, {**HANDLE, "bus_name": "usb"}, errno.ENODEV),
        (DEVLINK_CMD_PORT_GET, HANDLE, errno.EINVAL),
        (DEVLINK_CMD_PORT_GET, {**HANDLE, "port_index": 5}, errno.ENODEV),
        (DEVLINK_CMD_PORT_SET, {**HANDLE, "port_index": 0xFFFF, "port_type": 3}, errno.EOPNOTSUPP),
        (DEVLINK_CMD_ESWITCH_SET, {**HANDLE, "eswitch_mode": 2}, errno.ERANGE),
        (DEVLINK_CMD_ESWITCH_SET, {**HANDLE, "eswitch_inline_mode": 4}, errno.ERANGE),
        (DEVLINK_CMD_ESWITCH_SET, {**HANDLE, "eswitch_inline_mode": 1}, errno.EOPNOTSUPP),
        (DEVLINK_CMD_PARAM_SET, {**HANDLE, "param_name": "nothing"}, errno.EINVAL),
        (DEVLINK_CMD_PARAM_SET, {**HANDLE, "param_name": "enable_roce"}, errno.EINVAL),
        (
            DEVLINK_CMD_PARAM_SET,
            {**HANDLE, "param_name": "enable_roce", "param_type": 6, "param_value_cmode": 0},
            errno.EOPNOTSUPP,
        ),
        (DEVLINK_CMD_RELOAD, {**HANDLE, "reload_action": 3}, errno.ERANGE),
        (DEVLINK_CMD_RELOAD, {**HANDLE, "reload_limits": (0, 0)}, errno.EINVAL),
        (DEVLINK_CMD_RELOAD, {**HANDLE, "reload_limits": (6, 6)}, errno.EOPNOTSUPP),
        (DEVLINK_CMD_RELOAD, {**HANDLE, "reload_limits": (2, 2)}, errno.EINVAL),
        (DEVLINK_CMD_RELOAD, {**HANDLE, "netns_pid": 1}, errno.EOPNOTSUPP),
    ],
)
def test_requests_that_are_refused(served: Served, command: int, attrs: dict[str, Any], number: int) -> None:
    with refused(number):
        served.ask(command, attrs)


def test_a_reload_makes_the_netdevs_anew_and_keeps_vfs_and_mode(served: Served) -> None:
    driver, pf = served.driver, served.driver.nics[0].pfs[0]
    driver.set_numvfs(PF, 2)
    driver.set_mode(PF, EswitchMode.SWITCHDEV)
    driver.set_vf_mac(pf, 1, b"\x02" * 6)
    pf.hw_tc_offload = {"uplink": True, "rep0": False, "vf1": True}
    served.backend.take()
    assert served.ask(DEVLINK_CMD_RELOAD, HANDLE) == []
    assert served.backend.take() == [
        *(f"destroy rep pf0vf{i}" for i in range(2)),
        "destroy enp3s0f0",
        "create enp3s0f0",
        *(f"create rep pf0vf{i}" for i in range(2)),
        "program enp3s0f0 switchdev 2",
    ]
    assert (pf.mode, pf.vfs[1].mac, pf.hw_tc_offload) == (EswitchMode.SWITCHDEV, b"\x02" * 6, {"vf1": True})
    (answer,) = served.ask(DEVLINK_CMD_RELOAD, {**HANDLE, "reload_action": 2})
    assert answer["reload_actions_performed"] == (0b110, 0b110)


def test_devices_are_in_the_nodes_namespace_only(served: Served) -> None:
    assert served.ask(DEVLINK_CMD_GET, {}, NLM_F_DUMP, cookie=99) == []
    with refused(errno.ENODEV):
        served.ask(DEVLINK_CMD_GET, HANDLE, cookie=99)


def test_addresses_that_no_function_can_have(served: Served) -> None:
    served.driver.set_numvfs(PF, 1)
    served.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    for address in (b"", bytes(8), b"\x01" * 6):
        with refused(errno.EINVAL):
            served.ask(DEVLINK_CMD_PORT_SET, {**HANDLE, "port_index": 1, "port_function": {"hw_addr": address}})
    served.ask(DEVLINK_CMD_PORT_SET, {**HANDLE, "port_index": 1, "port_function": {"hw_addr": b"\x02" * 6}})
    assert served.driver.nics[0].pfs[0].vfs[0].mac == b"\x02" * 6


def test_the_group_is_told_what_came_and_went_and_nothing_twice(served: Served) -> None:
    served.driver.set_numvfs(PF, 1)
    served.face.changed()
    assert served.told() == [
        (DEVLINK_CMD_NEW, "0000:03:00.2", None),
        (DEVLINK_CMD_PORT_NEW, "0000:03:00.2", 1 << 16),
    ]
    served.face.changed()
    assert served.told() == []
    served.ask(DEVLINK_CMD_ESWITCH_SET, {**HANDLE, "eswitch_mode": 1})
    assert served.told() == [(DEVLINK_CMD_PORT_NEW, PF, 1), (DEVLINK_CMD_RATE_NEW, PF, 1)]
    served.driver.unbind(PF)
    served.face.changed()
    assert [(command, port) for command, _, port in served.told()] == [
        (DEVLINK_CMD_PORT_DEL, 1 << 16),
        (DEVLINK_CMD_DEL, None),
        (DEVLINK_CMD_RATE_DEL, 1),
        (DEVLINK_CMD_PORT_DEL, 1),
        (DEVLINK_CMD_PORT_DEL, 0xFFFF),
        (DEVLINK_CMD_DEL, None),
    ]


def test_a_refused_mode_leaves_what_was_told(served: Served) -> None:
    served.backend.rules = 1
    with pytest.raises(NetlinkError, match="E-Switch is busy"):
        served.ask(DEVLINK_CMD_ESWITCH_SET, {**HANDLE, "eswitch_mode": 1})
    assert served.told() == []


def test_devices_and_ports_are_in_good_health(served: Served) -> None:
    served.driver.set_numvfs(PF, 1)
    served.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    shown = served.ask(DEVLINK_CMD_HEALTH_REPORTER_GET, HANDLE, NLM_F_DUMP)
    names = [(one.get("port_index"), one["health_reporter"]["name"]) for one in shown]
    device = [(None, "fw"), (None, "fw_fatal"), (None, "vnic")]
    assert names == [*device, (1, "vnic"), (0xFFFF, "tx"), (0xFFFF, "rx")]
    assert [one["health_reporter"].get("graceful_period") for one in shown] == [None, 60_000, None, None, 500, 500]
    uplink = {**HANDLE, "port_index": 0xFFFF}
    (one,) = served.ask(DEVLINK_CMD_HEALTH_REPORTER_GET, {**uplink, "health_reporter_name": "rx"})
    assert (one["health_reporter"]["state"], one["health_reporter"]["auto_dump"]) == (0, 1)
    with refused(errno.EINVAL):
        served.ask(DEVLINK_CMD_HEALTH_REPORTER_GET, {**uplink, "health_reporter_name": "fw"})


MBIT = 125_000
LEAF = {**HANDLE, "port_index": 1}


def test_a_vfs_port_has_rates_in_switchdev_mode(served: Served) -> None:
    served.driver.set_numvfs(PF, 2)
    assert served.ask(DEVLINK_CMD_RATE_GET, b"", NLM_F_DUMP) == []
    served.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    (vf, _other) = served.driver.nics[0].pfs[0].vfs
    served.face.changed()
    served.told()
    served.ask(DEVLINK_CMD_RATE_SET, {**LEAF, "rate_tx_share": 10 * MBIT, "rate_tx_max": 200 * MBIT})
    assert (vf.min_tx_rate, vf.max_tx_rate) == (10, 200)
    assert served.told() == [(DEVLINK_CMD_RATE_NEW, PF, 1)]
    leafs = served.ask(DEVLINK_CMD_RATE_GET, b"", NLM_F_DUMP)
    assert list(leafs[0].items()) == [
        *HANDLE.items(),
        *(("rate_type", 0), ("port_index", 1), ("rate_tx_share", 10 * MBIT), ("rate_tx_max", 200 * MBIT)),
        *(("rate_tx_priority", 0), ("rate_tx_weight", 0)),
    ]
    assert [leaf["port_index"] for leaf in leafs] == [1, 2]
    served.driver.set_mode(PF, EswitchMode.LEGACY)
    served.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    assert served.ask(DEVLINK_CMD_RATE_GET, LEAF)[0]["rate_tx_max"] == vf.max_tx_rate == 0


@pytest.mark.parametrize(
    ("command", "attrs", "number", "text"),
    [
        (DEVLINK_CMD_RATE_SET, {"port_index": 1, "rate_tx_max": MBIT + 1}, errno.EINVAL, "not in link speed units"),
        (DEVLINK_CMD_RATE_SET, {"port_index": 1, "rate_tx_max": 100_001 * MBIT}, errno.EINVAL, "exceed link maximum"),
        (
            DEVLINK_CMD_RATE_SET,
            {"port_index": 1, "rate_tx_weight": 5},
            errno.EOPNOTSUPP,
            "TX weight set isn't supported for the leafs",
        ),
        (DEVLINK_CMD_RATE_SET, {"port_index": 1, "rate_parent_node_name": "group"}, errno.ENODEV, ""),
        (DEVLINK_CMD_RATE_SET, {"port_index": 0xFFFF, "rate_tx_max": MBIT}, errno.ENODEV, ""),
        (DEVLINK_CMD_RATE_GET, {}, errno.EINVAL, ""),
        (DEVLINK_CMD_RATE_NEW, {"rate_node_name": "group"}, errno.EOPNOTSUPP, ""),
        (DEVLINK_CMD_RATE_NEW, {"rate_node_name": "12"}, errno.EINVAL, ""),
        (DEVLINK_CMD_RATE_DEL, {"rate_node_name": "group"}, errno.ENODEV, ""),
    ],
)
def test_rates_that_are_refused(served: Served, command: int, attrs: dict[str, Any], number: int, text: str) -> None:
    served.driver.set_numvfs(PF, 1)
    served.driver.set_mode(PF, EswitchMode.SWITCHDEV)
    with pytest.raises(NetlinkError) as error:
        served.ask(command, {**HANDLE, **attrs})
    assert error.value.errno == number
    assert text in (error.value.text or "")


def test_function_numbers_of_two_ports_do_not_meet() -> None:
    served = Served(*booted(nic(ports=2, total_vfs=3)))
    for pf in served.driver.nics[0].pfs:
        served.driver.set_numvfs(pf.bdf, 3)
    numbers = [function.number for function in served.face.functions()]
    assert sorted(numbers) == list(range(8))


@given(st.binary(max_size=100), st.integers(0, 0xFFFF))
def test_malformed_requests_are_refused(data: bytes, flags: int) -> None:
    served = Served(*booted())
    handle = DEVLINK_ATTRS.encode(HANDLE)
    for command in served.family.handlers:
        for body in (data, handle + data):
            with contextlib.suppress(NetlinkError):
                served.ask(command, body, flags)
