# SPDX-License-Identifier: Apache-2.0
"""Actions of the reference eSwitch that change a packet and lead nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from asap2.nic.layer_actions import (
    Congest,
    LayerChange,
    PopEthernet,
    PopMpls,
    PopNsh,
    PushEthernet,
    PushMpls,
    PushNsh,
    SetEthertype,
    SwapEthernet,
)
from asap2.nic.rules import AddTtl, Change, Decap, Encap, ModifyVlan, PopVlan, PushVlan, SetField, SetTunnel
from asap2.nic.silicon import layers, packet, tunnel
from asap2.nic.silicon.journey import Journey
from asap2.nic.silicon.ports import Port
from asap2.nic.silicon.rewrite import rewrite

Retag = PushVlan | PopVlan | ModifyVlan
"""Actions on the outer tag."""


def change(
    action: Change,
    what: Journey,
    port: Port,
    tunnel_ports: tuple[int, ...],
    retag: Callable[[bytes, Retag], bytes],
) -> None:
    """Do one that changes the packet and leads nowhere. Raises CutTagError, LayerError."""
    match action:
        case PushVlan() | PopVlan() | ModifyVlan():
            what.frame = retag(what.frame, action)
        case SetField("skb_mark", to):
            what.mark = what.mark & ~to.mask | to.value
        case SetField("skb_priority", to):
            what.priority = what.priority & ~to.mask | to.value
        case SetField() | AddTtl():
            what.frame = rewrite(what.frame, action)
        case Encap():
            what.frame = tunnel.encapsulate(what.frame, action, what.flow_hash)
            what.enveloped = True
        case Decap() if port.metadata:  # the kernel has done it; as TC's "tunnel_key unset"
            what.came_in = None
        case Decap():
            what.frame = tunnel.decapsulate(what.frame, tunnel_ports)
        case SetTunnel():
            what.came_in, what.goes_into = None, replace(action, tp_dst=0)
        case _:
            _change_layers(action, what)


def _change_layers(action: LayerChange, what: Journey) -> None:
    match action:
        case PushMpls(entry, ethertype, outside):
            if outside and what.bare:
                raise layers.LayerError
            push = layers.push_mpls_outside if outside else layers.push_mpls
            what.frame, what.bare = push(what.frame, entry, ethertype), what.bare or outside
            what.layered = what.enveloped = True
        case PopMpls(ethertype):
            popped = layers.pop_mpls(what.frame, ethertype)
            if ethertype == layers.ETHERNET and what.bare and popped is not what.frame:
                _take_room(what, layers.without_room(popped))
            else:
                what.frame = popped
        case PushEthernet(dst, src):
            if not what.bare:
                raise layers.LayerError
            what.frame, what.bare = layers.push_ethernet(what.frame, dst, src), False
        case PopEthernet():
            if what.bare:
                raise layers.LayerError
            what.frame, what.bare = layers.pop_ethernet(what.frame), True
        case PushNsh(header):
            what.frame = layers.push_nsh(what.frame, header, ethernet=not what.bare)
            what.bare = what.layered = what.enveloped = True
        case PopNsh():
            if not what.bare:
                raise layers.LayerError
            frame, ethernet = layers.pop_nsh(what.frame)
            if ethernet:
                _take_room(what, frame)
            else:
                what.frame = frame
        case SwapEthernet():
            what.frame = layers.swap_ethernet(what.frame)
        case SetEthertype(ethertype):
            what.frame = layers.set_ethertype(what.frame, ethertype)
        case Congest():
            what.frame = layers.congest(what.frame)
        case _:
            assert_never(action)


def _take_room(what: Journey, frame: bytes) -> None:
    if what.layered:
        raise layers.LayerError
    what.frame, what.bare = frame, False


def retag(frame: bytes, action: Retag) -> bytes:
    """*frame* with its tags changed. Raises :class:`.packet.CutTagError`."""
    match action:
        case PushVlan(vid, pcp, tpid):
            return packet.push_vlan(frame, tpid, pcp << 13 | vid)
        case PopVlan():
            return packet.pop_vlan(frame)
        case ModifyVlan(vid, pcp, tpid):
            return packet.modify_vlan(frame, tpid, vid, pcp)
