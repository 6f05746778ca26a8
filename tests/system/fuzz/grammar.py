# SPDX-License-Identifier: Apache-2.0
"""Messages that are right, or nearly: of every family, made from the codec's tables and from what the node has."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

from asap2.netlink import codec
from asap2.netlink.codec import Table
from asap2.netlink.tables import actions, devlink, ethtool, link, ovs
from asap2.netlink.tables.flower import FLOWER
from asap2.netlink.tables.tc import ACTION_BODY, TC, Tcamsg, Tcmsg
from asap2.netlink.wire import (
    NETLINK_GENERIC,
    NETLINK_ROUTE,
    NLA_F_NESTED,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_ECHO,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    attribute,
)
from tests.system.fuzz.material import Made, World, some
from tests.system.fuzz.mutate import number

TC_H_INGRESS, TC_H_CLSACT_INGRESS, TC_H_CLSACT_EGRESS = 0xFFFF_FFF1, 0xFFFF_FFF2, 0xFFFF_FFF3
INGRESS_HANDLE = 0xFFFF_0000
_CHANGES = {
    12: ethtool.FEATURES_ATTRS,
    14: ethtool.PRIVFLAGS_ATTRS,
    16: ethtool.RINGS_ATTRS,
    18: ethtool.CHANNELS_ATTRS,
    20: ethtool.COALESCE_ATTRS,
    22: ethtool.PAUSE_ATTRS,
}
_PROTOCOLS = (0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x8847, 3, 0x9000)
_IP_PROTOCOLS = (1, 6, 17, 58, 132, 47)


class Grammar:
    """Makes messages for a :class:`World`."""

    def __init__(self, rng: random.Random, world: World) -> None:
        self.rng = rng
        self.world = world
        self._makers: list[tuple[float, Callable[[], Made]]] = [
            (4, self._qdisc),
            (26, self._filter_new),
            (7, self._filter_other),
            (3, self._chain),
            (4, self._action),
            (2, self._datapath),
            (4, self._vport),
            (22, self._flow),
            (8, self._execute),
            (5, self._devlink),
            (8, self._ethtool),
            (7, self._link),
            (1, self._control),
        ]
        self._weights = [weight for weight, _ in self._makers]

    def make(self) -> Made:
        """A message."""
        ((_, maker),) = self.rng.choices(self._makers, self._weights)
        return maker()

    # ---- bits and pieces

    def _flags(self, *choices: int) -> int:
        made = NLM_F_REQUEST
        for choice in choices:
            if self.rng.random() < 0.5:
                made |= choice
        return made | (NLM_F_ACK if self.rng.random() < 0.3 else 0)

    def _device(self) -> int:
        if self.rng.random() < 0.01:
            return self.rng.choice((0, 1, -1, 9999, 0x7FFF_FFFF))
        known = self.world.representors if self.rng.random() < 0.6 and self.world.representors else self.world.devices
        return self.rng.choice(known) if known else 1

    def _port(self) -> int:
        known = self.world.ports
        return (
            self.rng.choice(known) if known and self.rng.random() < 0.95 else self.rng.choice((0, 7, 0xFFFF, 0x10000))
        )

    def _route(self, type_: int, flags: int, payload: bytes, fixed: int) -> Made:
        return Made(NETLINK_ROUTE, type_, flags, payload, fixed)

    def _generic(self, family: str, cmd: int, flags: int, body: bytes, header: bytes = b"") -> Made:
        payload = bytes((cmd, 1, 0, 0)) + header + body
        return Made(NETLINK_GENERIC, self.world.families[family], flags, payload, 4 + len(header))

    # ---- TC

    def _parent(self) -> int:
        return self.rng.choice((INGRESS_HANDLE, INGRESS_HANDLE, TC_H_CLSACT_INGRESS, TC_H_CLSACT_EGRESS, TC_H_INGRESS))

    def _qdisc(self) -> Made:
        rng = self.rng
        type_ = rng.choice((36, 36, 36, 36, 37, 38))
        kind = rng.choice(("ingress", "ingress", "clsact", "fq_codel", "noqueue"))
        body: dict[str, Any] = {"kind": kind}
        if rng.random() < 0.1:
            body["ingress_block"] = rng.randrange(3)
        header = Tcmsg(0, self._device(), INGRESS_HANDLE, TC_H_INGRESS, 0)
        flags = self._flags(NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE) if type_ != 38 else self._flags(NLM_F_DUMP)
        if type_ == 36:
            flags |= NLM_F_CREATE
        return self._route(type_, flags, TC.encode(header, body), TC.size)

    def _matches(self, share: float) -> tuple[int, bytes]:
        """A protocol, and fields that can be matched in it."""
        rng = self.rng
        ethertype = rng.choice(_PROTOCOLS[:4])
        made = attribute(8, ethertype.to_bytes(2, "big"))
        inner = ethertype
        if ethertype == 0x8100:
            inner = rng.choice((0x0800, 0x86DD))
            made += attribute(23, struct.pack("=H", rng.randrange(4096))) + attribute(25, inner.to_bytes(2, "big"))
        if inner in (0x0800, 0x86DD):
            protocol = rng.choice(_IP_PROTOCOLS)
            made += attribute(9, bytes((protocol,)))
            first, size = (10, 4) if inner == 0x0800 else (14, 16)
            for kind in (first, first + 2):
                if rng.random() < 0.6:
                    made += attribute(kind, rng.randbytes(size))
                    made += attribute(
                        kind + 1, rng.choice((b"\xff" * size, b"\xff\xff" + bytes(size - 2), rng.randbytes(size)))
                    )
            if protocol in (6, 17) and rng.random() < 0.5:
                made += attribute(18 if protocol == 6 else 20, rng.randbytes(2))
        for kind in (4, 6):
            if rng.random() < 0.3:
                made += attribute(kind, rng.randbytes(6)) + attribute(kind + 1, b"\xff" * 6)
        if rng.random() < share:
            made += some(rng, FLOWER, 0.04)
        return ethertype, made

    def _action_list(self, most: int = 4) -> bytes:
        made = b""
        for order in range(1, self.rng.randrange(1, most + 1) + 1):
            made += attribute(order, self._one_action())
        return made

    def _one_action(self) -> bytes:
        rng = self.rng
        kind = rng.choice(
            (
                "mirred",
                "mirred",
                "gact",
                "vlan",
                "pedit",
                "tunnel_key",
                "skbedit",
                "csum",
                "police",
                "ct",
                "mpls",
                "sample",
                "skbmod",
                "nat",
                "connmark",
                "ctinfo",
                "ife",
                "bpf",
            )
        )
        verdict = rng.choice((3, 3, 0, 2, 4, 7, -1, 0x2000_0001))
        common = (rng.choice((0, 0, 0, 0, rng.randrange(6))), 0, verdict, 0, 0)
        options: dict[str, Any] = {}
        match kind:
            case "mirred":
                options["parms"] = actions.Mirred(*common, rng.choice((1, 1, 2, 3, 4)), self._device() & 0xFFFF_FFFF)
            case "gact":
                options["parms"] = actions.Generic(*common[:2], rng.choice((2, 0, 0x2000_0001, 0x2000_0005, 8)), 0, 0)
            case "vlan":
                options["parms"] = actions.Vlan(*common, rng.choice((1, 2, 3, 4, 5)))
                options |= {"push_vlan_id": rng.randrange(4097), "push_vlan_protocol": rng.choice((0x8100, 0x88A8))}
            case "skbedit":
                options["parms"] = actions.Generic(*common)
                options |= rng.choice(({"ptype": 0}, {"mark": 5}, {"priority": 1}, {}))
            case "csum":
                options["parms"] = actions.Csum(*common, rng.randrange(128))
            case "tunnel_key":
                options["parms"] = actions.TunnelKey(*common, rng.choice((1, 2)))
                options |= {
                    "enc_ipv4_src": rng.randbytes(4),
                    "enc_ipv4_dst": rng.randbytes(4),
                    "enc_key_id": rng.randrange(1 << 24),
                    "enc_dst_port": 4789,
                }
            case "pedit":
                count = rng.randrange(1, 4)
                keys = b"".join(
                    struct.pack(
                        "=IIIIII",
                        *(int.from_bytes(number(rng, 4), "little") for _ in range(2)),
                        rng.choice((0, 4, 8, 12, 16, 20)),
                        0,
                        0,
                        0,
                    )
                    for _ in range(count)
                )
                selector = struct.pack("=IIiiiBB2x", *common, count, 0)
                extended = b"".join(
                    attribute(
                        6 | NLA_F_NESTED,
                        attribute(1, struct.pack("=H", rng.randrange(6)))
                        + attribute(2, struct.pack("=H", rng.randrange(2))),
                    )
                    for _ in range(count)
                )
                raw = attribute(4, selector + keys) + attribute(5 | NLA_F_NESTED, extended)
                return attribute(1, b"pedit\0") + attribute(2 | NLA_F_NESTED, raw)
            case _:
                table = actions.OPTIONS.get(kind)
                raw = some(rng, table, 0.4) if table is not None else b""
                return attribute(1, kind.encode() + b"\0") + attribute(2 | NLA_F_NESTED, raw)
        encoded = actions.OPTIONS[kind].encode(options)
        made = attribute(1, kind.encode() + b"\0") + attribute(2 | NLA_F_NESTED, encoded)
        if rng.random() < 0.3:
            made += attribute(6, rng.randbytes(rng.choice((4, 16, 20))))
        return made

    def _filter_new(self) -> Made:
        rng = self.rng
        ethertype, matches = self._matches(0.2)
        options = matches + attribute(3, self._action_list())
        if rng.random() < 0.3:
            options += attribute(22, struct.pack("=I", rng.choice((0, 1, 2, 3, 8))))
        kind = rng.choice((b"flower",) * 12 + (b"matchall", b"basic", b"u32"))
        body = attribute(1, kind + b"\0") + attribute(2 | NLA_F_NESTED, options)
        if rng.random() < 0.25:
            body += attribute(11, struct.pack("=I", rng.randrange(4)))
        priority = rng.choice((0, 1, 2, 3, 4, 0xC000, 0xFFFF))
        info = priority << 16 | int.from_bytes(ethertype.to_bytes(2, "big"), "little")
        header = Tcmsg(0, self._device(), rng.choice((0, 0, 0, 1, 2, 7)), self._parent(), info)
        flags = self._flags(NLM_F_CREATE, NLM_F_EXCL, NLM_F_ECHO) | NLM_F_CREATE
        return self._route(44, flags, TC.encode(header, {}) + body, TC.size)

    def _filter_other(self) -> Made:
        rng = self.rng
        type_ = rng.choice((45, 45, 46, 46))
        header, body = Tcmsg(0, self._device(), 0, self._parent(), 0), b""
        if self.world.filters and rng.random() < 0.8:
            ifindex, parent, priority, protocol, handle, chain = rng.choice(self.world.filters)
            info = (priority & 0xFFFF) << 16 | int.from_bytes(protocol.to_bytes(2, "big"), "little")
            header = Tcmsg(0, ifindex, handle if rng.random() < 0.9 else 0, parent, info)
            body = attribute(1, b"flower\0") + attribute(11, struct.pack("=I", chain))
        flags = self._flags(NLM_F_ECHO) | (NLM_F_DUMP if type_ == 46 and rng.random() < 0.5 else 0)
        if rng.random() < 0.3:
            body += attribute(15, struct.pack("=II", 1, 1))
        return self._route(type_, flags, TC.encode(header, {}) + body, TC.size)

    def _chain(self) -> Made:
        rng = self.rng
        type_ = rng.choice((100, 100, 101, 102))
        body = attribute(11, struct.pack("=I", rng.choice((0, 1, 2, 3, 0x1000_0000))))
        if rng.random() < 0.3:
            _, matches = self._matches(0)
            body += attribute(1, b"flower\0") + attribute(2 | NLA_F_NESTED, matches)
        header = Tcmsg(0, self._device(), 0, self._parent(), 0)
        flags = self._flags(NLM_F_CREATE, NLM_F_EXCL) if type_ == 100 else self._flags(NLM_F_DUMP)
        return self._route(type_, flags, TC.encode(header, {}) + body, TC.size)

    def _action(self) -> Made:
        rng = self.rng
        type_ = rng.choice((48, 48, 49, 50, 50))
        body = attribute(1, self._action_list(2)) + some(
            rng, Table("", {2: ("flags", actions.bitfield32), 4: ("delta", codec.u32)}), 0.2
        )
        flags = self._flags(NLM_F_CREATE, NLM_F_REPLACE) if type_ != 50 else self._flags(NLM_F_DUMP)
        return self._route(type_, flags, ACTION_BODY.encode(Tcamsg(0), {}) + body, ACTION_BODY.size)

    # ---- Open vSwitch's datapath

    def _header(self) -> bytes:
        known = self.world.datapath
        return struct.pack("=i", known if self.rng.random() < 0.99 else self.rng.choice((0, -1, 99)))

    def _datapath(self) -> Made:
        rng = self.rng
        cmd = rng.choice((1, 2, 3, 3, 3, 4, 4)) if rng.random() < 0.5 else rng.choice((3, 4))
        body = some(rng, ovs.DATAPATH_ATTRS, 0.15)
        if rng.random() < 0.5:
            body += attribute(1, b"ovs-system\0")
        if cmd == 1:
            body += attribute(2, struct.pack("=I", 0)) + attribute(5, struct.pack("=I", rng.choice((0, 1, 5, 9, 13))))
        return self._generic(
            "ovs_datapath", cmd, self._flags(NLM_F_ECHO, *((NLM_F_DUMP,) if cmd == 3 else ())), body, self._header()
        )

    def _vport(self) -> Made:
        rng = self.rng
        cmd = rng.choice((1, 1, 2, 3, 3, 4))
        body = some(rng, ovs.VPORT_ATTRS, 0.05)
        if cmd == 1:
            name = rng.choice((b"eth0", b"eth1", b"enp3s0f0", b"t-int0", b"t-int1", b"lo", b"nothing"))
            kind = 2 if name.startswith(b"t-int") else rng.choice((1, 1, 1, 2, 4))
            body += (
                attribute(2, struct.pack("=I", kind)) + attribute(3, name + b"\0") + attribute(5, struct.pack("=I", 0))
            )
        if rng.random() < 0.8:
            body += attribute(1, struct.pack("=I", self._port()))
        flags = self._flags(NLM_F_ECHO, *((NLM_F_DUMP,) if cmd == 3 else ()))
        return self._generic("ovs_vport", cmd, flags, body, self._header())

    def _key(self, full: bool) -> bytes:
        """A flow's key, or with *full* unset its mask or a part."""
        rng = self.rng
        made = attribute(3, struct.pack("=I", self._port() if full else 0xFFFF_FFFF))
        made += attribute(4, rng.randbytes(12) if full else rng.choice((b"\xff" * 12, bytes(12), rng.randbytes(12))))
        ethertype = rng.choice(_PROTOCOLS)
        if rng.random() < 0.5:
            made += attribute(20, struct.pack("=I", rng.choice((0, 0, 1, 7)) if full else 0xFFFF_FFFF))
        made += attribute(6, ethertype.to_bytes(2, "big") if full else b"\xff\xff")
        protocol = rng.choice(_IP_PROTOCOLS)
        if ethertype == 0x0800:
            made += attribute(7, rng.randbytes(8) + bytes((protocol, rng.randrange(256), 64, rng.choice((0, 0, 1, 2)))))
        elif ethertype == 0x86DD:
            made += attribute(8, rng.randbytes(32) + struct.pack(">IBBBB", rng.randrange(1 << 20), protocol, 0, 64, 0))
        elif ethertype == 0x0806:
            made += attribute(13, rng.randbytes(8) + b"\0\1" + rng.randbytes(12) + b"\0\0")
        if ethertype in (0x0800, 0x86DD):
            l4 = {1: 11, 6: 9, 17: 10, 58: 12, 132: 17}.get(protocol)
            if l4 is not None:
                made += attribute(l4, rng.randbytes(2 if l4 in (11, 12) else 4))
        if rng.random() < 0.2:
            made += some(rng, ovs.KEY, 0.06)
        if rng.random() < 0.1:
            made += attribute(16 | NLA_F_NESTED, some(rng, ovs.TUNNEL_KEY, 0.4))
        return made

    def _flow_actions(self, depth: int = 0) -> bytes:
        rng = self.rng
        made = b""
        for _ in range(rng.randrange(0, 5)):
            match rng.randrange(13):
                case 0 | 1 | 2 | 3:
                    made += attribute(1, struct.pack("=I", self._port()))
                case 4:
                    made += attribute(
                        2, attribute(1, struct.pack("=I", rng.randrange(1 << 16))) + attribute(2, rng.randbytes(16))
                    )
                case 5:
                    made += attribute(4, struct.pack(">HH", rng.choice((0x8100, 0x88A8, 0)), rng.randrange(1 << 16)))
                case 6:
                    made += attribute(5, b"")
                case 7:
                    made += attribute(7, struct.pack("=I", rng.randrange(9)))
                case 8:
                    made += attribute(13, struct.pack("=I", rng.choice((0, 13, 14, 60, 65535))))
                case 9:
                    kind, size = rng.choice(((7, 12), (8, 40), (4, 12), (9, 4), (10, 4), (15, 4)))
                    part = rng.randbytes(size)
                    made += attribute(
                        11, attribute(kind, part + rng.choice((part, b"\xff" * size, rng.randbytes(size))))
                    )
                case 10 if depth < 4:
                    inner = self._flow_actions(depth + 1)
                    made += rng.choice(
                        (
                            attribute(20, inner),
                            attribute(6, attribute(1, number(rng, 4)) + attribute(2, inner)),
                            attribute(21, attribute(1, number(rng, 2)) + attribute(2, inner) + attribute(3, inner)),
                        )
                    )
                case 11:
                    made += some(rng, ovs.ACTIONS, 0.08)
                case _:
                    made += attribute(3, attribute(rng.choice((2, 15)), number(rng, 4)))
        return made

    def _flow(self) -> Made:
        rng = self.rng
        cmd = rng.choice((1, 1, 1, 1, 1, 2, 3, 3, 4))
        body = attribute(1, self._key(True))
        if rng.random() < 0.6:
            body += attribute(7, self._key(False))
        if cmd in (1, 4):
            body += attribute(2, self._flow_actions())
        if rng.random() < 0.5:
            known = self.world.flows
            body += attribute(9, rng.choice(known) if known and rng.random() < 0.5 else rng.randbytes(16))
            body += attribute(10, struct.pack("=I", rng.randrange(8)))
        if cmd == 2 and rng.random() < 0.01:
            body = b""
        if rng.random() < 0.1:
            body += attribute(8, b"")
        flags = self._flags(NLM_F_ECHO, NLM_F_CREATE, *((NLM_F_DUMP,) if cmd == 3 and rng.random() < 0.2 else ()))
        return self._generic("ovs_flow", cmd, flags, body, self._header())

    def _execute(self) -> Made:
        rng = self.rng
        packet = (
            rng.randbytes(12) + rng.choice(_PROTOCOLS).to_bytes(2, "big") + b"\x45" + rng.randbytes(rng.randrange(100))
        )
        body = (
            attribute(1, packet if rng.random() < 0.95 else packet[:10])
            + attribute(2, self._key(True))
            + attribute(3, self._flow_actions())
        )
        if rng.random() < 0.2:
            body += attribute(8, b"")
        return self._generic("ovs_packet", 3, self._flags(), body, self._header())

    # ---- the rest

    def _devlink(self) -> Made:
        rng = self.rng
        cmd = rng.choice((1, 5, 6, 29, 29, 30, 38, 39, 51))
        names = {"bus_name": "pci", "dev_name": rng.choice(self.world.functions)} if self.world.functions else {}
        body = devlink.DEVLINK_ATTRS.encode(names) if rng.random() < 0.9 else b""
        body += some(rng, devlink.DEVLINK_ATTRS, 0.03)
        if cmd == 30:
            body += rng.choice(
                (
                    attribute(26, bytes((rng.randrange(5),))),
                    attribute(62, bytes((rng.randrange(3),))),
                    attribute(25, struct.pack("=H", rng.choice((1, 1, 1, 1, 5)))),
                )
            )
        if cmd in (5, 6):
            body += attribute(3, struct.pack("=I", rng.choice((0, 1, 2, 0xFFFF, 0x1_FFFF))))
        flags = self._flags(*((NLM_F_DUMP,) if cmd in (1, 5, 38, 51) else ()))
        return self._generic("devlink", cmd, flags, body)

    def _ethtool(self) -> Made:
        rng = self.rng
        cmd = rng.choice((1, 2, 4, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 29))
        header = attribute(1, struct.pack("=I", self._device() & 0x7FFF_FFFF)) + attribute(
            3, struct.pack("=I", rng.randrange(4))
        )
        body = attribute(1 | NLA_F_NESTED, header)
        table = _CHANGES.get(cmd)
        if table is not None:
            body += some(rng, Table("", {n: f for n, f in table.fields.items() if n > 1}), 0.3)
        if cmd in (12, 14):
            names = ["hw-tc-offload", "tx-gso-list"] if cmd == 12 else ["rx_cqe_moder", "tx_port_ts"]
            bits = ethtool.verbose_bitset(8, [(rng.randrange(4), rng.choice(names), rng.random() < 0.5)])
            body += attribute((3 if cmd == 12 else 2) | NLA_F_NESTED, ethtool.BITSET.encode(bits))
        if cmd == 1:
            sets = [{"id": rng.choice((0, 1, 2, 4, 9))}]
            body += attribute(2 | NLA_F_NESTED, ethtool.STRINGSETS.encode({"stringset": sets}))
        flags = self._flags(*((NLM_F_DUMP,) if cmd in (2, 4, 11, 15, 17, 19) and rng.random() < 0.2 else ()))
        return self._generic("ethtool", cmd, flags, body)

    def _link(self) -> Made:
        rng = self.rng
        type_ = rng.choice((16, 18, 18, 19, 19, 19, 17))
        header = link.Ifinfomsg(rng.choice((0, 0, 0, 7, 10, 17)), 0, self._device(), 0, 0)
        body = b""
        if type_ in (16, 19):
            infos = attribute(1 | NLA_F_NESTED, some(rng, link.VF_INFO, 0.25))
            body = attribute(22 | NLA_F_NESTED, infos)
            if rng.random() < 0.3:
                body += attribute(4, struct.pack("=I", rng.choice((68, 1500, 9978, 9979, 0))))
        elif type_ == 18:
            body = attribute(29, struct.pack("=I", rng.choice((0, 1, 8, 9, 0x7F))))
        flags = self._flags(*((NLM_F_DUMP,) if type_ == 18 and rng.random() < 0.3 else ()))
        return self._route(type_, flags, link.LINK.encode(header, {}) + body, link.LINK.size)

    def _control(self) -> Made:
        rng = self.rng
        body = attribute(2, rng.choice((*map(str.encode, self.world.families), b"nothing", b"nlctrl")) + b"\0")
        return Made(NETLINK_GENERIC, 0x10, self._flags(), bytes((rng.choice((3, 3, 10)), 1, 0, 0)) + body, 4)
