# SPDX-License-Identifier: Apache-2.0
"""What TC refuses and gives back, where the kernel's own tests (tools/testing/selftests/tc-testing) look."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asap2.netlink.tables import actions as ta
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.tc import RTM_NEWTFILTER
from asap2.netlink.wire import NetlinkError, attribute, attributes
from asap2.nic.faces.tc import tunnel_options
from asap2.nic.faces.tc.qdiscs import PARENT_INGRESS
from tests.unit.nic.faces.tc_node import NEW, REPRESENTOR, Node
from tests.unit.nic.faces.tc_requests import gact, parsed

NEW_FILTER = RTM_NEWTFILTER.to_bytes(2, "little")


@pytest.fixture(autouse=True)
def devices() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.if_indextoname", lambda ifindex: f"eth{ifindex}")
        yield


def chance(kind: int, verdict: int) -> dict[str, Any]:
    action = gact(ta.TC_ACT_OK)
    action["options"]["prob"] = ta.GactProbability(kind, 2, verdict)
    return action


@pytest.mark.parametrize(
    ("kind", "verdict", "text"),
    [(1, ta.TC_ACT_GOTO_CHAIN | 1, "goto chain not allowed on fallback"), (3, ta.TC_ACT_OK, None)],
)
def test_an_impossible_chance_is_refused(kind: int, verdict: int, text: str | None) -> None:
    with pytest.raises(NetlinkError) as refused:
        parsed(chance(kind, verdict))
    assert (refused.value.errno, refused.value.text) == (errno.EINVAL, text)


def test_a_tunnels_options_come_back_in_one_nest() -> None:
    options: list[dict[str, Any]] = [
        {"class": 0x102, "type": 0x80, "data": b"\0\x88\0\x22"},
        {"class": 0x408, "type": 66, "data": bytes(8)},
    ]
    _wire, ((name, back),) = tunnel_options.to_set({"geneve": options})
    ((kind, nest),) = attributes(ta.TUNNEL_KEY.encode({name: back}))
    one = b"".join(
        attribute(1, option["class"].to_bytes(2, "big"))
        + attribute(2, bytes((option["type"],)))
        + attribute(3, option["data"])
        for option in options
    )
    assert (kind, nest) == (11, attribute(1, one))


def test_a_matchall_shows_its_class(tmp_path: Path) -> None:
    node = Node(tmp_path, True)
    header = tables.Tcmsg(0, REPRESENTOR, 1, PARENT_INGRESS, tables.info(1, 0x0003))
    options = {"classid": 0x10001, "flags": 1, "act": [gact(ta.TC_ACT_OK)]}
    request = tables.TC.encode(header, {"kind": "matchall", "options": options})
    told = [message for message in node.ask(RTM_NEWTFILTER, NEW, request) if message[5:7] == NEW_FILTER]
    shown = [tables.TC.decode(message[17:])[1]["options"] for message in told]
    assert [one["classid"] for one in shown] == [0x10001]
