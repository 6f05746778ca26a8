# SPDX-License-Identifier: Apache-2.0
"""hw-tc-offload in the kernel's answers, and the setting itself."""

from __future__ import annotations

import contextlib
import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asap2.netlink.request import PASS, GenlHeader, Netns, Proxy, Request
from asap2.netlink.tables.ethtool import (
    ETH_SS_FEATURES,
    ETHTOOL_MSG_FEATURES_GET,
    ETHTOOL_MSG_FEATURES_GET_REPLY,
    ETHTOOL_MSG_FEATURES_NTF,
    ETHTOOL_MSG_FEATURES_SET,
    ETHTOOL_MSG_FEATURES_SET_REPLY,
    ETHTOOL_MSG_STRSET_GET,
    FEATURES,
    FEATURES_ATTRS,
    STRSET,
    compact_bitset,
    set_bits,
    verbose_bitset,
)
from asap2.netlink.tables.genl import GenlHdr
from asap2.netlink.wire import NetlinkError, NlMsg, attribute
from asap2.nic.device import Driver
from asap2.nic.faces.ethtool.face import EthtoolFace
from asap2.nic.function import EswitchMode
from asap2.nic.netdevs import NetDev
from tests.unit.nic.backend import ListedNetDevs, RecordingBackend, booted
from tests.unit.nic.faces.faces import StillServer, request

NAMES = ["tx-checksum-ipv4", "rx-gro", "hw-tc-offload", "loopback"]
PF = "0000:03:00.0"


class Kernel(StillServer):
    """A kernel with four features, of which no device can have hw-tc-offload."""

    def family(self, family: Any) -> None:
        family.id = 21
        super().family(family)

    def kernel(self, _netns: Netns, _protocol: int) -> Any:
        return self

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []
        self.refuses = False

    def request(self, type_: int, _flags: int, payload: bytes) -> list[NlMsg]:
        self.asked.append(payload)
        if self.refuses and payload[0] == ETHTOOL_MSG_FEATURES_SET:
            raise NetlinkError(errno.EINVAL, "bit name not found")
        return [NlMsg(type_, 0, 1, 0, self.answer(payload))]

    def answer(self, payload: bytes, *, compact: bool = True) -> bytes:
        if payload[0] == ETHTOOL_MSG_STRSET_GET:
            strings = [{"index": i, "value": name} for i, name in enumerate(NAMES)]
            sets = [{"id": ETH_SS_FEATURES, "count": len(NAMES), "strings": {"string": strings}}]
            return STRSET.encode(GenlHdr(ETHTOOL_MSG_STRSET_GET), {"stringsets": {"stringset": sets}})
        index = FEATURES.decode(payload)[1]["header"]["dev_index"]

        def bits(value: int, mask: int | None = None) -> dict[str, Any]:
            if compact:
                return compact_bitset(4, value, mask)
            named = enumerate(NAMES)
            if mask is None:
                return verbose_bitset(4, [(i, n, True) for i, n in named if value >> i & 1], nomask=True)
            return verbose_bitset(4, [(i, n, bool(value >> i & 1)) for i, n in named if mask >> i & 1])

        header = {"dev_index": index, "dev_name": "x"}
        if payload[0] == ETHTOOL_MSG_FEATURES_SET:
            return FEATURES.encode(
                GenlHdr(ETHTOOL_MSG_FEATURES_SET_REPLY), {"header": header, "wanted": bits(0, 0), "active": bits(0, 0)}
            )
        state = {"hw": bits(0b0011, 0b1111), "wanted": bits(0b0001), "active": bits(0b0001), "nochange": bits(0b1000)}
        return FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET_REPLY), {"header": header, **state})


class Served:
    """ethtool of a node in switchdev mode with one VF."""

    def __init__(self) -> None:
        self.driver: Driver
        self.backend: RecordingBackend
        self.driver, self.backend = booted()
        self.driver.set_numvfs(PF, 1)
        self.driver.set_mode(PF, EswitchMode.SWITCHDEV)
        self.netdevs = ListedNetDevs(self.driver)
        self.kernel = Kernel()
        self.changed: list[NetDev] = []
        self.face = EthtoolFace(
            self.kernel,  # type: ignore[arg-type]
            self.driver,
            self.netdevs,
            tunnel_ports=lambda: (),
            features_changed=lambda _netns, device: self.changed.append(device),
        )

    def index(self, name: str) -> int:
        device = self.netdevs.by_name(name)
        assert device
        return device.ifindex

    def request(self, command: int, attrs: dict[str, Any]) -> tuple[Request, GenlHeader]:
        return request(21, b""), GenlHeader(command, 1, b"", FEATURES_ATTRS.encode(attrs))

    def get(self, name: str, *, compact: bool) -> dict[str, dict[str, bool]]:
        asked = {"header": {"dev_index": self.index(name)}}
        proxy = self.face.features_get(*self.request(ETHTOOL_MSG_FEATURES_GET, asked))
        assert isinstance(proxy, Proxy)
        payload = self.kernel.answer(FEATURES.encode(GenlHdr(ETHTOOL_MSG_FEATURES_GET), asked), compact=compact)
        (message,) = proxy.rewrite(NlMsg(21, 0, 1, 0, payload))
        attrs = FEATURES.decode(message.payload)[1]
        return {key: set_bits(attrs[key], NAMES) for key in ("hw", "wanted", "active", "nochange")}

    def set(self, name: str, wanted: dict[str, Any]) -> tuple[dict[str, bool], dict[str, bool], dict[Any, Any]] | None:
        """What the answer says of bits that were wanted in vain and of bits that changed; what the kernel was asked."""
        asked = {"header": {"dev_index": self.index(name)}, "wanted": wanted}
        self.kernel.asked.clear()
        answer = self.face.features_set(*self.request(ETHTOOL_MSG_FEATURES_SET, asked))
        if answer is PASS:
            return None
        assert isinstance(answer, list)
        attrs = FEATURES.decode(answer[0].payload)[1]
        (sent,) = [payload for payload in self.kernel.asked if payload[0] == ETHTOOL_MSG_FEATURES_SET]
        others = set_bits(FEATURES.decode(sent)[1]["wanted"], NAMES)
        return set_bits(attrs["wanted"], NAMES), set_bits(attrs["active"], NAMES), others


@pytest.fixture
def served() -> Served:
    return Served()


def bits(**features: bool) -> dict[str, Any]:
    named = [(NAMES.index(n.replace("_", "-")), n.replace("_", "-"), value) for n, value in features.items()]
    return verbose_bitset(4, named)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(("name", "on"), [("enp3s0f0", False), ("eth0", True)])
def test_the_feature_can_be_changed_and_has_its_state(served: Served, name: str, on: bool, compact: bool) -> None:
    features = served.get(name, compact=compact)
    assert features["hw"]["hw-tc-offload"]
    assert [features[key].get("hw-tc-offload", False) for key in ("wanted", "active", "nochange")] == [on, on, False]
    assert features["hw"] == {
        **dict.fromkeys(NAMES, False),
        "tx-checksum-ipv4": True,
        "rx-gro": True,
        "hw-tc-offload": True,
    }
    assert features["active"]["tx-checksum-ipv4"]
    assert features["nochange"]["loopback"]


def test_a_vf_has_the_feature_until_it_is_unbound(served: Served) -> None:
    assert served.get("enp3s0f0v0", compact=True)["hw"]["hw-tc-offload"]
    assert served.set("enp3s0f0v0", bits(hw_tc_offload=True)) == ({}, {"hw-tc-offload": True}, {})
    served.driver.unbind("0000:03:00.2")
    served.driver.bind("0000:03:00.2")
    assert not served.get("enp3s0f0v0", compact=True)["active"]["hw-tc-offload"]


def test_turning_it_on_changes_one_bit_and_asks_nothing_of_the_kernel(served: Served) -> None:
    assert served.set("enp3s0f0", bits(hw_tc_offload=True)) == ({}, {"hw-tc-offload": True}, {})
    assert served.get("enp3s0f0", compact=True)["active"]["hw-tc-offload"]
    assert served.set("enp3s0f0", bits(hw_tc_offload=True)) == ({}, {}, {})
    assert served.driver.nics[0].pfs[0].hw_tc_offload == {"uplink": True}


def test_other_bits_are_asked_of_the_kernel(served: Served) -> None:
    assert served.set("eth0", bits(rx_gro=False, hw_tc_offload=False)) == (
        {},
        {"hw-tc-offload": False},
        {"rx-gro": False},
    )
    assert served.set("eth0", bits(rx_gro=True)) is None


def test_compact_requests_are_understood(served: Served) -> None:
    assert served.set("eth0", compact_bitset(4, 0b0000, 0b0110)) == (
        {},
        {"hw-tc-offload": False},
        {"rx-gro": False},
    )


def test_what_the_kernel_refuses_changes_nothing_here_either(served: Served) -> None:
    served.kernel.refuses = True
    with pytest.raises(NetlinkError, match="bit name not found"):
        served.set("enp3s0f0", bits(hw_tc_offload=True, rx_gro=True))
    assert served.driver.nics[0].pfs[0].hw_tc_offload == {}


@given(st.binary(max_size=60))
def test_malformed_requests_are_refused_or_the_kernels(data: bytes) -> None:
    served = Served()
    header = FEATURES_ATTRS.encode({"header": {"dev_index": served.index("eth0")}})
    for body in (header + data, header + attribute(3, data), header + attribute(3, attribute(3, attribute(1, data)))):
        with contextlib.suppress(NetlinkError):
            served.face.features_set(request(21, b""), GenlHeader(ETHTOOL_MSG_FEATURES_SET, 1, b"", body))


def test_an_uplink_with_offloaded_rules_keeps_it_and_says_so(served: Served) -> None:
    served.set("enp3s0f0", bits(hw_tc_offload=True))
    served.backend.rules = 3
    assert served.set("enp3s0f0", bits(hw_tc_offload=False)) == ({"hw-tc-offload": False}, {}, {})
    assert served.set("eth0", bits(hw_tc_offload=False)) == ({}, {"hw-tc-offload": False}, {})


def test_a_change_is_told_once(served: Served) -> None:
    served.set("enp3s0f0", bits(hw_tc_offload=True))
    served.set("enp3s0f0", bits(hw_tc_offload=True))
    ((family, group, payload),) = served.kernel.sent
    assert (family, group, payload[0]) == ("ethtool", "monitor", ETHTOOL_MSG_FEATURES_NTF)
    assert set_bits(FEATURES.decode(payload)[1]["active"], NAMES)["hw-tc-offload"]
