# SPDX-License-Identifier: Apache-2.0
"""Timeout policies of connections, and default timeouts, as programs set and read them."""

from __future__ import annotations

from dataclasses import replace

from asap2.netlink.tables import cttimeout
from asap2.netlink.tables.cttimeout import TIMEOUT, TIMEOUT_DEFAULT_GET, TIMEOUT_DELETE, TIMEOUT_GET, TIMEOUT_NEW
from asap2.netlink.tables.nfnetlink import Nfgenmsg
from asap2.netlink.wire import NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLMSG_DONE
from tests.unit.nic.faces.conntrack_node import Node, policy


def test_timeout_policies_are_kept_by_name() -> None:
    node = Node()
    new = NLM_F_CREATE
    assert node.error(TIMEOUT_NEW, policy("x", seconds={3: 33}), new | NLM_F_EXCL) == ""
    assert node.error(TIMEOUT_NEW, policy("x"), new | NLM_F_EXCL) == "EEXIST"
    assert node.error(TIMEOUT_NEW, policy("x"), new) == "EBUSY"
    assert node.error(TIMEOUT_NEW, policy("x", 17), new | NLM_F_REPLACE) == "EINVAL"
    assert node.error(TIMEOUT_NEW, policy("x", seconds={2: 34}), new | NLM_F_REPLACE) == ""
    assert node.error(TIMEOUT_NEW, policy("y", 99), new) == "EOPNOTSUPP"
    assert node.error(TIMEOUT_NEW, policy("n" * 32), new) == "EINVAL"
    assert node.error(TIMEOUT_NEW, policy(None), new) == "EINVAL"
    message, _ack = node.ask(TIMEOUT_GET, TIMEOUT.encode(Nfgenmsg(), {"name": "x"}))
    attrs = TIMEOUT.decode(message.payload)[1]
    assert list(attrs) == ["name", "l3proto", "l4proto", "use", "data"]
    assert list(cttimeout.timeouts(11).decode(attrs["data"]).values()) == [
        120, 34, 432000, 120, 60, 30, 120, 10, 120, 300, 300
    ]  # fmt: skip
    node.timeouts.put(replace(node.timeouts.named["x"], uses=1))
    named = TIMEOUT.encode(Nfgenmsg(), {"name": "x"})
    assert node.error(TIMEOUT_DELETE, named) == "EBUSY"
    node.timeouts.put(replace(node.timeouts.named["x"], uses=0))
    assert node.error(TIMEOUT_DELETE, named) == ""
    assert node.error(TIMEOUT_DELETE, named) == "ENOENT"
    assert [one.type for one in node.ask(TIMEOUT_GET, bytes(4), NLM_F_DUMP)] == [NLMSG_DONE]


def test_default_timeouts_are_told() -> None:
    asked = TIMEOUT.encode(Nfgenmsg(), {"l3proto": 2, "l4proto": 17})
    message, _ack = Node().ask(TIMEOUT_DEFAULT_GET, asked)
    assert list(cttimeout.timeouts(2).decode(TIMEOUT.decode(message.payload)[1]["data"]).values()) == [30, 120]
