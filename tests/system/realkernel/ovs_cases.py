# SPDX-License-Identifier: Apache-2.0
"""Random flows and frames for Open vSwitch's datapath: most of them right, many nearly so."""

from __future__ import annotations

import struct
from random import Random

from asap2.netlink.tables.ovs import KEY
from asap2.netlink.wire import NLA_TYPE_MASK, attribute, attributes
from asap2.nic.faces.ovs import key, meter
from asap2.nic.faces.ovs.actions import conntrack as ct
from asap2.nic.faces.ovs.actions import numbers as action
from asap2.nic.faces.ovs.extract import AUTH, extract
from asap2.nic.faces.ovs.key import numbers
from tests.system.nic.silicon.frames import frame

_LONGEST = 160
_IPV6, _ICMPV6, _NEIGHBOUR = 0x86DD, 58, (135, 136)
Flow = tuple[bytes, bytes | None, bytes]
"""Key, mask and actions, as attributes."""
Request = tuple[int, int, bytes | None, bytes | None, bytes | None, bytes | None]
"""A request about flows: command, flags, UFID, key, mask and actions."""


def random_frame(random: Random) -> bytes:
    """A frame of at least 60 bytes, so that nothing pads it, and with headers no longer than we look at.

    Of messages of neighbour discovery with a code, and of an IPv6 header that is cut short, the kernel tells what was
    in its memory, and what it tells of authentication headers is not what its source says: there are none here.
    """
    while True:
        made = frame(random)[:_LONGEST].ljust(60, b"\0")
        fields = extract(made, {}) or {}
        neighbour = fields.get("ip_proto") == _ICMPV6 and fields.get("l4_src") in _NEIGHBOUR and fields.get("l4_dst")
        cut = fields.get("eth_type") == _IPV6 and not fields.get("ip_src")
        if not (neighbour or cut or fields.get("ipv6_exthdrs", 0) & AUTH):
            return made


def random_flow(random: Random) -> Flow:
    """A flow: the key is of some frame, or damaged."""
    made = None
    while made is None:
        made = extract(frame(random), {"in_port": 1, "recirc_id": random.choice((0, 0, 5))} | _tracked(random))
    exact = without_zone(key.emit(made, made))
    mask = None if random.random() < 0.15 else _mask(random, exact)
    tracks = made.get("ip_proto") and random.random() < 0.4
    actions = attribute(action.CT, _cut(random, _track(random, made))) if tracks else _actions(random, made, 0)
    if random.random() < 0.15:
        damaged = _damaged(random, exact)
        exact = exact if _overlaps(damaged) else damaged
    if random.random() < 0.1:
        actions = _damaged(random, actions)
    return exact, mask, actions


def _tracked(random: Random) -> key.Fields:
    """What connection tracking says of a packet: mostly nothing."""
    if random.random() < 0.7:
        return {}
    fields = {"ct_state": random.choice((0x21, 0x22, 0x2A, 0x30, 0xE2, 0x121)), "ct_mark": random.getrandbits(32)}
    fields["ct_labels"] = random.getrandbits(128)
    original = {"ct_src": 0x0A000001, "ct_dst": 0x0A000002, "ct_tp_src": 1000, "ct_tp_dst": 80, "ct_proto": 6}
    return fields | (original if random.random() < 0.6 else {})


_NEW, _DEL, _GET, _SET = range(1, 5)
_CREATE = 0x400
_SOURCES = (b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02")
_OUTPUT = attribute(action.OUTPUT, b"\2\0\0\0")


def random_requests(random: Random) -> list[Request]:
    """Requests about a few flows, whose names and keys are often those of another, or overlap."""
    requests: list[Request] = []
    for _ in range(30):
        command = random.choice((_NEW, _NEW, _NEW, _SET, _GET, _DEL))
        ufid = random.choice((None, bytes([1] * 16), bytes([2] * 16)))
        sides = random.choice(_SOURCES), random.choice(_SOURCES)
        named = numbers.ETHERNET, b"".join(sides)
        exact = attribute(numbers.IN_PORT, b"\1\0\0\0") + attribute(*named) + attribute(numbers.ETHERTYPE, b"\x88\xb5")
        bits = b"".join(random.choice((b"\xff" * 6, bytes(6))) for _ in sides)
        mask = attribute(numbers.IN_PORT, b"\xff" * 4) + attribute(numbers.ETHERNET, bits)
        has_key = ufid is None or command == _NEW or random.random() < 0.5
        flags = random.choice((0, _CREATE)) if command == _NEW else 0
        changes = command == _NEW or (command == _SET and has_key)
        requests.append(
            (command, flags, ufid, exact if has_key else None, mask if changes else None, _OUTPUT if changes else None)
        )
    return requests


_IGNORED = (numbers.CT_ZONE, numbers.IPV6_EXTHDRS)
"""Matches that either datapath has not: they are left out of masks."""


_NETWORK = {numbers.IPV4, numbers.IPV6, numbers.ARP, numbers.MPLS, numbers.NSH}
_ORIGINAL = {numbers.CT_ORIG_TUPLE_IPV4: numbers.IPV4, numbers.CT_ORIG_TUPLE_IPV6: numbers.IPV6}


def _overlaps(payload: bytes) -> bool:
    """Whether a key has two headers that lie in the same memory in the kernel's: what it then says is nobody's rule."""
    kinds: list[int] = []
    while payload:
        attrs = {kind & NLA_TYPE_MASK: value for kind, value in attributes(payload)}
        kinds += attrs.keys() & _NETWORK
        kinds += [_ORIGINAL[kind] for kind in attrs.keys() & _ORIGINAL.keys() if _ORIGINAL[kind] not in attrs]
        kinds += [numbers.ND] * (numbers.CT_ORIG_TUPLE_IPV6 in attrs and numbers.ND in attrs)
        payload = attrs.get(numbers.ENCAP, b"")
    return len(kinds) > 1


def without_zone(payload: bytes) -> bytes:
    """A key without the zone of connection tracking, which the kernel of user-mode-linux has not."""
    return b"".join(attribute(kind, value) for kind, value in key.walk(payload) if kind != numbers.CT_ZONE)


def actions_without_zone(payload: bytes) -> bytes:
    """As :func:`without_zone`, of actions."""
    out = b""
    for number, value in attributes(payload):
        kind, value = number & NLA_TYPE_MASK, bytes(value)
        if kind == action.CT:
            value = b"".join(attribute(inner, data) for inner, data in key.walk(value) if inner != ct.ZONE)
        elif kind == action.CLONE:
            value = actions_without_zone(value)
        elif kind in (action.SAMPLE, action.CHECK_PKT_LEN):
            lists = (action.SAMPLE_ACTIONS,) if kind == action.SAMPLE else (2, 3)
            inner = ((which, actions_without_zone(data) if which in lists else data) for which, data in key.walk(value))
            value = b"".join(attribute(which, data) for which, data in inner)
        out += attribute(number, value)
    return out


def _mask(random: Random, payload: bytes) -> bytes:
    out = b""
    for kind, value in key.walk(payload):
        if kind in _IGNORED or (kind == numbers.PRIORITY and random.random() < 0.8):
            continue
        if kind == numbers.ENCAP:
            out += attribute(kind, _mask(random, value))
        elif kind == numbers.NSH:
            inner = b"".join(attribute(number, _bits(random, len(data))) for number, data in key.walk(value))
            out += attribute(kind, inner)
        elif kind in (numbers.ETHERTYPE, numbers.VLAN) and random.random() < 0.9:
            out += attribute(kind, b"\xff" * len(value))
        elif kind in (numbers.IPV4, numbers.IPV6):
            exact = b"\xff" if random.random() < 0.8 else b"\0"
            at = len(value) - 4
            out += attribute(
                kind, _bits(random, at) + exact + _bits(random, 2) + random.choice((b"\xff", b"\xff", b"\0"))
            )
        elif random.random() < 0.85:
            out += attribute(kind, _bits(random, len(value)))
    return out


def _bits(random: Random, size: int) -> bytes:
    return random.choice((b"\xff" * size, b"\xff" * size, bytes(size), random.randbytes(size)))


_KINDS = (*range(16), 17, 18, 20, 21, 22, 25, 26, 27, 28, 40)
"""Numbers of attributes; as actions, not those that this datapath has not."""


def _damaged(random: Random, payload: bytes) -> bytes:
    attrs = key.walk(payload)
    if not attrs:
        return attribute(random.choice(_KINDS), random.randbytes(random.choice((0, 2, 4, 12))))
    at = random.randrange(len(attrs))
    kind, value = attrs[at]
    match random.choice(("drop", "twice", "shorter", "byte", "kind")):
        case "drop":
            del attrs[at]
        case "twice":
            attrs.insert(at, (kind, value))
        case "shorter":
            attrs[at] = kind, value[:-1]
        case "byte":
            where = random.randrange(len(value) or 1)
            attrs[at] = kind, value[:where] + random.randbytes(1) + value[where + 1 :]
        case "kind":
            attrs[at] = random.choice(_KINDS), value
    return b"".join(attribute(kind, value) for kind, value in attrs)


def _actions(random: Random, of: key.Fields, depth: int) -> bytes:
    return b"".join(_action(random, of, depth) for _ in range(random.choice((0, 1, 1, 2, 3))))


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


_SIMPLE: tuple[str, ...] = (
    *("output", "output", "recirc", "trunc", "hash", "user", "vlan", "unvlan", "mpls", "unmpls", "add", "eth"),
    *("uneth", "nsh", "unnsh", "set", "set", "set", "set", "tunnel"),
    *("ct", "ct", "ct", "clear"),
)


def _action(random: Random, of: key.Fields, depth: int) -> bytes:
    nested = ("clone", "sample", "length") if depth < 2 else ()
    match random.choice((*_SIMPLE, *nested)):
        case "output":
            return _word(action.OUTPUT, random.choice((1, 2, 2, 9, 65534, 65535)))
        case "recirc":
            return _word(action.RECIRC, random.choice((0, 7)))
        case "trunc":
            return _word(action.TRUNC, random.choice((0, 13, 14, 100)))
        case "hash":
            return attribute(action.HASH, struct.pack("=II", random.choice((0, 0, 7)), 1))
        case "user":
            pid = attribute(action.USERSPACE_PID, struct.pack("=I", random.choice((0, 77, 77))))
            return attribute(action.USERSPACE, pid + random.choice((b"", attribute(2, b"cookie"))))
        case "vlan":
            tpid, tci = random.choice((0x8100, 0x88A8, 0x9100)), random.choice((0x1005, 5))
            return attribute(action.PUSH_VLAN, struct.pack("!HH", tpid, tci))
        case "unvlan":
            return attribute(action.POP_VLAN, b"")
        case "mpls" | "add" as kind:
            entry = struct.pack("!IH", 0x0006_4140, random.choice((0x8847, 0x8848, 0x0800)))
            if kind == "mpls":
                return attribute(action.PUSH_MPLS, entry + bytes(2))
            return attribute(action.ADD_MPLS, entry + struct.pack("=H", random.choice((0, 1))))
        case "unmpls":
            return attribute(action.POP_MPLS, struct.pack("!H", random.choice((0x0800, 0x8847, 0x6558))))
        case "eth":
            return attribute(action.PUSH_ETH, random.randbytes(12))
        case "uneth":
            return attribute(action.POP_ETH, b"")
        case "nsh":
            kind = random.choice((1, 1, 2))
            base = attribute(numbers.NSH_BASE, struct.pack("!BBBBI", 0, 63, kind, 3, 0x7BFF))
            context = (
                attribute(numbers.NSH_MD1, bytes(16))
                if random.random() < 0.6
                else attribute(numbers.NSH_MD2, bytes(random.choice((8, 8, 9))))
            )
            header = _cut(random, base + random.choice((context, context, b"")))
            kinds = random.choice(((numbers.NSH,),) * 8 + ((), (numbers.NSH, numbers.NSH), (numbers.NSH_BASE,), (64,)))
            return attribute(action.PUSH_NSH, b"".join(attribute(number, header) for number in kinds))
        case "unnsh":
            return attribute(action.POP_NSH, b"")
        case "tunnel":
            return attribute(action.SET, attribute(numbers.TUNNEL, _cut(random, _tunnel(random))))
        case "ct":
            return attribute(action.CT, _cut(random, _track(random, of)))
        case "clear":
            return attribute(action.CT_CLEAR, b"")
        case "clone":
            return attribute(action.CLONE, _actions(random, of, depth + 1))
        case "sample":
            probability = _word(1, random.choice((0, 0x7FFFFFFF, 0xFFFFFFFF)))
            return attribute(action.SAMPLE, probability + attribute(2, _actions(random, of, depth + 1)))
        case "length":
            lists = [attribute(which, _actions(random, of, depth + 1)) for which in (2, 3)]
            random.shuffle(lists)
            return attribute(action.CHECK_PKT_LEN, attribute(1, random.choice((b"\x64\0", b"\0\0"))) + b"".join(lists))
        case _:
            return _set(random, of)


def _cut(random: Random, payload: bytes) -> bytes:
    """Perhaps without the padding of the last attribute."""
    last = [4 + len(value) for _, value in attributes(payload)][-1:]
    return payload[: -(-last[0] % 4) or None] if last and random.random() < 0.2 else payload


def _tunnel(random: Random) -> bytes:
    attrs = [
        attribute(numbers.TUN_IPV4_SRC, b"\x0a\0\0\1"),
        attribute(numbers.TUN_IPV4_DST, random.choice((b"\x0a\0\0\2", bytes(4)))),
        attribute(numbers.TUN_TOS, random.choice((b"\0", b"\x08"))),
        attribute(numbers.TUN_TTL, b"\x40"),
        attribute(numbers.TUN_ATTR_DONT_FRAGMENT, b""),
        attribute(numbers.TUN_ATTR_CSUM, b""),
        attribute(numbers.TUN_TP_SRC, b"\0\1"),
        attribute(numbers.TUN_TP_DST, b"\x12\xb5"),
        attribute(numbers.TUN_IPV6_DST, bytes(15) + b"\1"),
    ]
    chosen = [one for one in attrs[:8] if random.random() < 0.8] + (attrs[8:] if random.random() < 0.1 else [])
    random.shuffle(chosen)
    return b"".join(chosen)


def _some(random: Random, attrs: list[tuple[float, bytes]], shuffled: float) -> bytes:
    """Attributes, each as likely as it says, perhaps in another order."""
    chosen = [one for likely, one in attrs if random.random() < likely]
    if random.random() < shuffled:
        random.shuffle(chosen)
    return b"".join(chosen)


_HELPERS = (b"ftp\0", b"ftp\0", b"tftp\0", b"gopher\0", b"ftp", b"ftp".ljust(17, b"\0"))
_POLICIES = (b"policy\0", b"\0", b"policy", b"policy\0more", b"x" * 31 + b"\0", bytes(33))
_LABEL_MASKS = (bytes(16), bytes(15) + b"\1", b"\xff" * 16)


def _track(random: Random, of: key.Fields) -> bytes:
    """What an action ct has, in some order; the zone is left out."""
    size = 16 if of.get("eth_type") == _IPV6 else 4
    attrs = [
        (0.85, attribute(random.choice((ct.COMMIT, ct.COMMIT, ct.FORCE_COMMIT)), b"")),
        (0.4, attribute(ct.MARK, struct.pack("=II", random.getrandbits(32), random.choice((0, 0xFF, 0xFFFFFFFF))))),
        (0.3, attribute(ct.LABELS, random.randbytes(16) + random.choice(_LABEL_MASKS))),
        (0.15, attribute(ct.HELPER, random.choice(_HELPERS))),
        (0.6, attribute(ct.NAT, _cut(random, _translate(random, size)))),
        (0.3, attribute(ct.EVENTMASK, random.randbytes(random.choice((4, 4, 4, 2))))),
        (0.2, attribute(ct.TIMEOUT, random.choice(_POLICIES))),
        (0.1, attribute(ct.NAT, _translate(random, size))),
        (0.03, attribute(random.choice((0, 10)), b"")),
    ]
    return _some(random, attrs, shuffled=0.5)


def _translate(random: Random, size: int) -> bytes:
    """What a translation of addresses has."""
    attrs = [
        (0.8, attribute(random.choice((ct.NAT_SRC, ct.NAT_DST)), b"")),
        (0.6, attribute(ct.NAT_IP_MIN, b"\x0a" * random.choice((size, size, size, size, 4, 16)))),
        (0.4, attribute(ct.NAT_IP_MAX, random.choice((b"\x0a", b"\x0b")) * size)),
        (0.4, attribute(ct.NAT_PROTO_MIN, struct.pack("=H", random.choice((0, 1000))))),
        (0.3, attribute(ct.NAT_PROTO_MAX, struct.pack("=H", random.choice((1000, 2000))))),
        (0.2, attribute(ct.NAT_PERSISTENT, b"")),
        (0.2, attribute(ct.NAT_PROTO_HASH, random.choice((b"", b"", b"", b"\1")))),
        (0.2, attribute(ct.NAT_PROTO_RANDOM, b"")),
        (0.05, attribute(random.choice((ct.NAT_SRC, ct.NAT_DST)), b"")),
        (0.03, attribute(random.choice((0, 10)), b"")),
    ]
    return _some(random, attrs, shuffled=0.3)


_SETTABLE = ("ethernet", "ipv4", "ipv6", "tcp", "udp", "sctp", "mpls", "skb_mark", "priority")
_NEVER_SET = ("nd", "arp", "icmp")


def _set(random: Random, of: key.Fields) -> bytes:
    present = dict(key.walk(key.emit(of, of)))
    kinds = tuple(KEY.numbers[name] for name in _SETTABLE)
    never = tuple(KEY.numbers[name] for name in _NEVER_SET)
    here = [kind for kind in kinds if kind in present] or [numbers.ETHERNET]
    kind = random.choice((random.choice(here), random.choice(here), random.choice((*kinds, *never))))
    size = 4 if kind == numbers.MPLS else max(numbers.LENGTHS[kind], 0)
    value = present.get(kind, b"")[:size].ljust(size, b"\0")
    if random.random() < 0.3:
        at = random.randrange(size)
        value = value[:at] + random.randbytes(1) + value[at + 1 :]
    if random.random() < 0.4:
        return attribute(action.SET, attribute(kind, value))
    mask = bytearray(_bits(random, size))
    if kind in (numbers.IPV4, numbers.IPV6) and random.random() < 0.8:
        mask[-4] = mask[-1] = 0
        if kind == numbers.IPV6:
            mask[32:34] = bytes(2)
    masked = bytes(v & m for v, m in zip(value, mask, strict=True)) if random.random() < 0.9 else value
    return attribute(action.SET_MASKED, attribute(kind, masked + bytes(mask)))


MeterRequest = tuple[int, bool, bytes]
"""A request about meters: command, whether it names the datapath, and attributes."""
_METER_IDS = (0, 1, 1, 2, 1024, 1025, 0xFFFFFFFF)


def random_meter_requests(random: Random) -> list[MeterRequest]:
    """Requests about a few meters, which are set again and again; some are malformed."""
    requests: list[MeterRequest] = []
    for _ in range(20):
        command = random.choice((meter.FEATURES, meter.SET, meter.SET, meter.SET, meter.GET, meter.GET, meter.DEL))
        attrs = b"" if random.random() < 0.05 else _word(meter.ATTR_ID, random.choice(_METER_IDS))
        if command == meter.SET:
            attrs += b"" if random.random() < 0.3 else attribute(meter.ATTR_KBPS, b"")
            attrs += b"" if random.random() < 0.7 else attribute(meter.ATTR_CLEAR, b"")
            if random.random() < 0.3:
                attrs += attribute(meter.ATTR_STATS, struct.pack("=QQ", 7, 700)[: random.choice((16, 16, 16, 8))])
            bands = b"".join(_band(random) for _ in range(random.choice((0, 1, 1, 1, 1, 1, 2))))
            attrs += b"" if random.random() < 0.05 else attribute(meter.ATTR_BANDS, bands)
        requests.append((command, random.random() < 0.95, attrs))
    return requests


def _band(random: Random) -> bytes:
    given = [
        (meter.BAND_TYPE, random.choice((1, 1, 1, 1, 2, 0))),
        (meter.BAND_RATE, random.choice((0, 1, 1000, 0xFFFFFFFF, 100))),
        (meter.BAND_BURST, random.choice((0, 1, 1000, 0xFFFFFFFF))),
    ]
    attrs = b"".join(_word(kind, value) for kind, value in given if random.random() < 0.97)
    if random.random() < 0.05:
        attrs += attribute(meter.BAND_RATE, b"\1\0")
    return attribute(0, attrs)
