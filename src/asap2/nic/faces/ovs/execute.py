# SPDX-License-Identifier: Apache-2.0
"""Packets that user space hands in with a key and actions (OVS_PACKET_CMD_EXECUTE)."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from typing import Final

from asap2.netlink.wire import NetlinkError
from asap2.nic.ethertypes import VLAN_TYPES
from asap2.nic.faces.ovs import actions as act
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.faces.ovs.attributes import too_short
from asap2.nic.faces.ovs.datapath import Datapath
from asap2.nic.faces.ovs.extract import extract
from asap2.nic.faces.ovs.upcall import PacketPath
from asap2.nic.fields import TRACKED
from asap2.nic.rules import OVS_TABLE
from asap2.nic.silicon.pipeline import HandedIn

log = logging.getLogger(__name__)

_ETH_HLEN: Final = 14


@dataclass(frozen=True, slots=True)
class Given:
    """A *packet*, behind room for an Ethernet header at least, its *key*, and what to do with it."""

    packet: bytes
    key: ovs_key.Fields
    steps: tuple[act.Step, ...]


def checked(packet: bytes, key: bytes, actions: bytes) -> Given:
    """What is handed in. EINVAL for a key or actions that are not right for it; ERANGE where it is too short."""
    if len(packet) < _ETH_HLEN:
        raise too_short()
    attrs = ovs_key.packet_attributes(key)
    metadata = ovs_key.packet_metadata(attrs)
    bare = not metadata["mac_proto"]
    if bare:
        if metadata["eth_type"] in VLAN_TYPES:
            raise NetlinkError(errno.EINVAL)
        packet = bytes(_ETH_HLEN - 2) + metadata["eth_type"].to_bytes(2, "big") + packet
    fields = extract(packet, metadata, ethernet=not bare)
    if fields is None:
        raise NetlinkError(errno.EINVAL)
    ovs_key.check_original_tuple(attrs, fields)
    return Given(packet, fields, act.parse(actions, fields))


def hand_in(dp: Datapath, path: PacketPath, given: Given, packet_hash: int, mru: int) -> None:
    """Let the pipeline of *dp* do what is asked with the packet; *packet_hash*: its hash, 0 where it has none yet;
    *mru*: the largest of the fragments that it was put together of, 0 where it was not."""
    key = given.key
    port = dp.port_of(key["in_port"])
    way = HandedIn(
        dp.one_packet(given.steps),
        dp.ifindex if port is None else port,
        OVS_TABLE | key.get("recirc_id", 0),
        act.tunnel_of(key) if key.get("tun_proto") else None,
        key.get("skb_mark", 0),
        key.get("skb_priority", 0),
        key.get("dp_hash", 0),
        packet_hash or None,
        bare=not key["mac_proto"],
        tracked={name: value for name, value in key.items() if name in TRACKED},
        mru=mru,
    )
    try:
        with dp.pipeline.hand_in(way) as mark:
            path.hand_in(given.packet, mark)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise NetlinkError(errno.EINVAL) from None
        log.debug("cannot do actions with a packet of %d bytes: %s", len(given.packet), error)
