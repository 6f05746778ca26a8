# SPDX-License-Identifier: Apache-2.0
"""What a real kernel and our tracker say of the same conversation: of each packet, and of every connection after it."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from asap2.netlink.codec import Attrs
from asap2.netlink.tables.ctnetlink import CT
from asap2.nic.conntrack import helpers, view
from asap2.nic.conntrack.connection import Connection
from asap2.nic.conntrack.ftp import IncompleteError
from asap2.nic.conntrack.states import ICMP, ICMPV6, SCTP, SECOND, TCP, Relation, Status
from asap2.nic.conntrack.tracker import DroppedError, Tracked, Tracker
from asap2.nic.conntrack.tuples import Tuple, word
from asap2.nic.faces.ovs import key as ovs_key
from asap2.nic.fragments import Fragments
from asap2.nic.nat import NatKind
from tests.system.realkernel import ct_cases
from tests.system.realkernel.ct_cases import Age, Packet, Step

_ENTROPY = 0, 0x2A2A
WITH_PORTS = 1, 6, 17, 58, 132, 136
"""Of other protocols, where NAT makes two connections of one, the older kernel there does something else."""
_SLACK = 2
"""Seconds by which the times that connections have left may differ at first: each aging rounds the kernel's."""
_ANY_FRAGMENT, _FRAGMENT = 0x3FFF, 44
"""Bits of IPv4's fragment field, and the number of IPv6's fragment header."""
_UNACKNOWLEDGED = 0x10
"""IP_CT_TCP_FLAG_DATA_UNACKNOWLEDGED."""
_LONGEST = 1.5
"""Seconds after which a conversation is no longer compared: UDP that has lasted for two is another thing."""

Seen = tuple[dict[str, int], bytes]
"""A packet's ``ct_`` fields, and what it has become."""


class Known(NamedTuple):
    """A connection as both sides tell of it, without the seconds that it has left."""

    original: str
    reply: str
    status: Status
    mark: int
    labels: str
    packets: tuple[int, int]
    octets: tuple[int, int]
    protocol: tuple[Any, ...]


Table = dict[Known, int]
"""Connections, and the seconds that each has left."""


class Helper:
    """What the daemon does for a *tracker*: helpers and fragments."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self._sequences: dict[int, helpers.Sequence] = {}
        self._fragments = Fragments()

    def whole(self, packet: Packet) -> bytes | None:
        """The frame, or that of the whole packet if it is a fragment; ``None`` while fragments are missing."""
        frame = packet.frame
        fragment = word(frame, 20) & _ANY_FRAGMENT if packet.family == 4 else packet.proto == _FRAGMENT
        if not fragment:
            return frame
        found = self._fragments.add(frame, 0, self.tracker.now)
        return None if found is None else found.frame

    def helped(self, done: Tracked) -> bytes:
        """The datagram after its helper, if it has one.

        Raises:
            IncompleteError: it is dropped.
        """
        if not done.helper or done.seen is None:
            return done.data
        connection, relation, way = done.seen
        original, reply = map(_shown, connection.tuples)
        status, helper = int(connection.status), connection.helper
        shown = view.Connection(id(connection), original, reply, status=status, helper=helper)
        sequence = self._sequences.setdefault(id(connection), helpers.Sequence())
        established = relation is Relation.ESTABLISHED
        found = helpers.help_with(done.data, 0, shown, way, sequence, established=established)
        if found.lengthened:
            connection.status |= Status.SEQ_ADJUST
        if found.expects is not None:
            one, back = found.expects
            changed = None if back is None else _unshown(back)
            self.tracker.expectations.add(connection, _unshown(one), changed, found.seconds, self.tracker.now)
        return found.frame


def _shown(one: Tuple) -> view.Tuple:
    family = socket.AF_INET if one.family == 4 else socket.AF_INET6
    return view.Tuple(family, one.proto, one.src, one.dst, one.sport, one.dport)


def _unshown(one: view.Tuple) -> Tuple:
    family = 4 if one.family == socket.AF_INET else 6
    return Tuple(family, one.protocol, one.src, one.dst, one.src_port, one.dst_port)


class Ours:
    """Two trackers that draw other random numbers: where they disagree, nobody knows what a kernel would do."""

    def __init__(self) -> None:
        self._trackers = [Tracker(now=10**12) for _ in _ENTROPY]
        self._helpers = [Helper(tracker) for tracker in self._trackers]
        self.slack = _SLACK

    def told(self, packet: Packet) -> Seen | str | None:
        """What the packet has become, ``None`` where it is dropped; or that it is random."""
        one, other = (self._told(*each, packet) for each in zip(self._helpers, _ENTROPY, strict=True))
        return one if one == other and not _chosen_at_random(packet, one) else "random"

    @staticmethod
    def _told(helper: Helper, entropy: int, packet: Packet) -> Seen | str | None:
        frame = helper.whole(packet)
        if frame is None:
            return None
        head, data = frame[:14], frame[14:]
        try:
            done = helper.tracker.execute(packet.action, data, packet.family, {}, entropy=entropy)
            data = helper.helped(done)
        except DroppedError:
            return None if packet.proto in WITH_PORTS else "random"
        except IncompleteError:
            return None
        told = done.fields
        if not told.get("ct_proto"):  # Open vSwitch does not give a tuple of protocol 0 to user space
            told = {name: value for name, value in told.items() if name not in ("ct_src", "ct_dst")}
        return told, head + data

    def age(self, seconds: int) -> bool:
        """Let each connection have so much less time; whether it is sure which are over then."""
        sure = True
        self.slack += 1
        for tracker in self._trackers:
            for one in list(tracker.connections()):
                one.expires -= seconds * SECOND
                sure &= abs(one.expires - tracker.now) > self.slack * SECOND
        return sure

    def table(self) -> Table:
        """The connections."""
        tracker = self._trackers[0]
        return {_known(one): (one.expires - tracker.now) // SECOND for one in tracker.connections()}


def _without_unacknowledged(known: Known) -> Known:
    """The same without a flag that differs where NAT has shifted sequence numbers: the kernel's window follows."""
    if not known.status & Status.SEQ_ADJUST or not known.protocol:
        return known
    state, scales, flags = known.protocol
    return known._replace(protocol=(state, scales, tuple(flag & ~_UNACKNOWLEDGED for flag in flags)))


def _chosen_at_random(packet: Packet, told: Seen | str | None) -> bool:
    """Whether the older kernel chooses at random where Linux 6.12 begins with the first: the new identifier of ICMP
    when NAT changes the destination."""
    nat = packet.action.nat
    if nat is None or nat.kind is not NatKind.DST or packet.proto not in (ICMP, ICMPV6) or not isinstance(told, tuple):
        return False
    at = 14 + (24 if packet.family == 4 else 44)
    return told[1][at : at + 2] != packet.frame[at : at + 2]


def _known(one: Connection) -> Known:
    protocol: tuple[Any, ...] = ()
    if one.proto == TCP:
        sides = one.tcp.seen
        protocol = int(one.tcp.state), tuple(side.scale for side in sides), tuple(int(side.flags) for side in sides)
    elif one.proto == SCTP:
        protocol = int(one.sctp.state), tuple(one.sctp.tags)
    original, reply = map(_tuple, one.tuples)
    numbers = (one.packets[0], one.packets[1]), (one.bytes[0], one.bytes[1])
    return Known(original, reply, one.status, one.mark, f"{one.labels:032x}", *numbers, protocol)


def _tuple(one: Tuple) -> str:
    return f"{one.proto} {one.src.hex()}:{one.sport} > {one.dst.hex()}:{one.dport}"


def theirs(key: bytes | None, frame: bytes | None) -> Seen | None:
    """What a packet has become in a real kernel."""
    if key is None or frame is None:
        return None
    fields = ovs_key.match_of(key, None).key
    return {name: value for name, value in fields.items() if name.startswith("ct_") and value}, frame


def their_table(messages: Sequence[bytes]) -> Table:
    """The connections of a real kernel."""
    found = {}
    for message in messages:
        _, attrs = CT.decode(message)
        found[_their_known(attrs)] = int(attrs["timeout"])
    return found


def _their_known(attrs: Attrs) -> Known:
    info = attrs.get("protoinfo", {})
    protocol: tuple[Any, ...] = ()
    if "tcp" in info:
        tcp = info["tcp"]
        flags = tcp["flags_original"].flags, tcp["flags_reply"].flags
        protocol = tcp["state"], (tcp["wscale_original"], tcp["wscale_reply"]), flags
    elif "sctp" in info:
        sctp = info["sctp"]
        protocol = sctp["state"], (sctp["vtag_original"], sctp["vtag_reply"])
    ways = [attrs.get(f"counters_{way}", {}) for way in ("orig", "reply")]
    packets, octets = ((ways[0].get(name, 0), ways[1].get(name, 0)) for name in ("packets", "bytes"))
    original, reply = (_their_tuple(attrs[f"tuple_{way}"]) for way in ("orig", "reply"))
    labels = attrs.get("labels", bytes(16)).hex()
    status = Status(attrs["status"])
    return Known(original, reply, status, attrs.get("mark", 0), labels, packets, octets, protocol)


def _their_tuple(attrs: Attrs) -> str:
    ip, proto = attrs["ip"], attrs["proto"]
    number = proto["num"]
    src, dst = (next(value for name, value in ip.items() if name.endswith(end)) for end in ("src", "dst"))
    if number in (ICMP, ICMPV6):
        name = "icmp" if number == ICMP else "icmpv6"
        ports = proto[f"{name}_id"], proto[f"{name}_type"] << 8 | proto[f"{name}_code"]
    else:
        ports = proto.get("src_port", 0), proto.get("dst_port", 0)
    return f"{number} {_hex(src)}:{ports[0]} > {_hex(dst)}:{ports[1]}"


def _hex(address: Any) -> str:
    if isinstance(address, bytes):
        return address.hex()
    family = socket.AF_INET6 if ":" in str(address) else socket.AF_INET
    return socket.inet_pton(family, str(address)).hex()


def difference(steps: Sequence[Step], told: Sequence[tuple[Any, ...]]) -> tuple[str | None, int]:
    """The first difference in a conversation, if there is one, and how many steps were compared."""
    ours = Ours()
    for at, (step, (seconds, error, key, frame, messages)) in enumerate(zip(steps, told, strict=True)):
        if seconds > _LONGEST:
            return None, at
        if error:
            return f"step {at}: errno {error} for {step}", at
        if isinstance(step, Age):
            if not ours.age(step.seconds):
                return None, at
        else:
            expected = ours.told(step)
            if isinstance(expected, str):
                return None, at
            got = theirs(key, frame)
            if got and expected and step.about_sctp:  # whose checksum it makes right, though the rest is missing
                got = got[0], expected[1]
            if got != expected:
                return f"step {at}: {step}\n  kernel: {got}\n  ours:   {expected}", at
        apart = _apart(ours.table(), their_table(messages), ours.slack)
        if apart:
            return f"after step {at}: {step}\n{apart}", at
    return None, len(steps)


def _apart(ours: Table, kernels: Table, slack: int) -> str:
    ours, kernels = ({_without_unacknowledged(one): left for one, left in each.items()} for each in (ours, kernels))
    lines = [f"  kernel: {one}" for one in kernels if one not in ours]
    lines += [f"  ours:   {one}" for one in ours if one not in kernels]
    lines += [
        f"  {kernels[one]} s left in the kernel, {ours[one]} s here: {one}"
        for one in ours
        if one in kernels and abs(ours[one] - kernels[one]) > slack
    ]
    return "\n".join(lines)


def as_read(step: Step) -> bool:
    """Whether our datapath reads the step's action as it was written."""
    return isinstance(step, Age) or ct_cases.as_read(step) == step.action
