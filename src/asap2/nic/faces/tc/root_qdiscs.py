# SPDX-License-Identifier: Apache-2.0
"""The qdiscs at the root of a NIC's netdevs: its queues get ``mq``, where a veth has ``noqueue``.

What a program puts there is the kernel's own and stays as it is; only what the kernel chose by itself is shown as it
would choose for the NIC: ``mq``, with a qdisc of the default kind on each transmit queue in use.

Sources: net/sched/{sch_mq,sch_generic,sch_api}.c of Linux 6.12, attach_default_qdiscs(), mq_attach(), tc_dump_qdisc();
drivers/net/ethernet/mellanox/mlx5/core/en_main.c, mlx5e_get_max_num_txqs().
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from asap2.netlink.request import Message, Netns, Request
from asap2.netlink.tables import tc as tables
from asap2.netlink.tables.actions import Basic, Queue
from asap2.netlink.wire import NlMsg, attribute
from asap2.nic.faces.ethtool import settings as ethtool_settings
from asap2.nic.function import Role
from asap2.nic.netdevs import NetDev, NetDevs, Where

RTM_NEWQDISC: Final = 36
PFIFO_FAST: Final = "pfifo_fast"
"""The default kind, unless net.core.default_qdisc says otherwise, which the machine's own network namespace has."""
_OPTIONS: Final = 2
_BANDS = struct.pack("=i16B", 3, 1, 2, 2, 2, 1, 2, 0, 0, *[1] * 8)
"""struct tc_prio_qopt of pfifo_fast."""
_MAX_TC = 8
"""MLX5E_MAX_NUM_TC: transmit queues that a PF or VF has for each channel."""


def transmit_queues(device: NetDev) -> int:
    """The transmit queues that there are room for (IFLA_NUM_TX_QUEUES)."""
    return ethtool_settings.max_channels() * (1 if device.role is Role.REPRESENTOR else _MAX_TC)


def queues(device: NetDev) -> int:
    """The queues in use, each way."""
    return ethtool_settings.of(device)["combined_count"]


def root_kind(device: NetDev) -> str:
    """The kind of qdisc that the kernel puts at the root of *device*."""
    return "mq" if transmit_queues(device) > 1 else PFIFO_FAST


class RootQdiscs:
    """Shows them. *hides* says of what has an ifindex in a network namespace that nobody is to see it."""

    def __init__(self, netdevs: NetDevs, hides: Callable[[Netns, int], bool] = lambda _netns, _ifindex: False) -> None:
        self._netdevs = netdevs
        self._hides = hides

    def shown(self, message: NlMsg, request: Request) -> list[Message]:
        """A message about a qdisc of the kernel's, or what there is in its place."""
        unchanged = [Message(message.type, message.payload, message.flags)]
        if message.type != RTM_NEWQDISC:
            return unchanged
        header, attrs = tables.TC.decode(message.payload)
        if self._hides(request.client.netns, header.ifindex):
            return []
        if attrs.get("kind") != "noqueue" or header.handle or header.parent != tables.TC_H_ROOT:
            return unchanged
        device = self._netdevs.by_ifindex(header.ifindex, request.client.netns.cookie)
        if device is None or device.pf is None:
            return unchanged
        found = list(self._root(device, header))
        return found if request.dump else found[:1]

    def _root(self, device: NetDev, header: tables.Tcmsg) -> Iterator[Message]:
        sent = self._netdevs.counted(device, Where.NETDEV)
        counted = Basic(sent.tx_bytes, sent.tx_packets)
        if root_kind(device) != "mq":
            yield _message(header, PFIFO_FAST, counted)
            return
        yield _message(header._replace(info=1), "mq", counted)
        for queue in range(1, queues(device) + 1):
            mine = counted if queue == 1 else Basic(0, 0)
            yield _message(header._replace(parent=queue, info=1), PFIFO_FAST, mine)


def _message(header: tables.Tcmsg, kind: str, sent: Basic) -> Message:
    before = tables.TC.encode(header, {"kind": kind})
    options = attribute(_OPTIONS, _BANDS) if kind == PFIFO_FAST else b""
    old = tables.TcStats(sent.bytes, sent.packets & 0xFFFF_FFFF)
    counted = {"hw_offload": 0, "stats2": {"basic": sent, "queue": Queue()}, "stats": old}
    return Message(RTM_NEWQDISC, before + options + tables.TCA.encode(counted))
