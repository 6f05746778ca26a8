# SPDX-License-Identifier: Apache-2.0
"""The connection table, and the effect of :class:`asap2.nic.rules.Ct` on a datagram."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from asap2.nic.conntrack import checksum, datagrams, icmp, sctp, tcp
from asap2.nic.conntrack.connection import ORIGINAL, REPLY, Connection
from asap2.nic.conntrack.expectations import Expectations
from asap2.nic.conntrack.fields import NAT_STATE, Fields, fields_of, put
from asap2.nic.conntrack.flow_table import in_software
from asap2.nic.conntrack.hardware import offer
from asap2.nic.conntrack.nat import unique_tuple
from asap2.nic.conntrack.seen import Seen
from asap2.nic.conntrack.sources import Sources
from asap2.nic.conntrack.states import (
    ICMP,
    ICMPV6,
    NAT_DONE_MASK,
    NAT_MASK,
    TCP,
    UDP,
    UDPLITE,
    Relation,
    Status,
    Timeouts,
)
from asap2.nic.conntrack.translate import UntranslatableError, translate, translate_error
from asap2.nic.conntrack.tuples import (
    IPV4,
    REDIRECT,
    Transport,
    Tuple,
    transport,
    trimmed,
    tuple_of,
)
from asap2.nic.conntrack.verdict import Verdict
from asap2.nic.nat import Nat, NatKind
from asap2.nic.rules import Ct, CtState, Masked

_BITS = {NatKind.SRC: CtState.SNAT, NatKind.DST: CtState.DNAT}
_STATUS = {NatKind.SRC: Status.SRC_NAT, NatKind.DST: Status.DST_NAT}
_DONE = {NatKind.SRC: Status.SRC_NAT_DONE, NatKind.DST: Status.DST_NAT_DONE}
_OTHER = {NatKind.SRC: NatKind.DST, NatKind.DST: NatKind.SRC}


class DroppedError(Exception):
    """Raised if the datagram is dropped (NF_DROP)."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A datagram after tracking: its octets, perhaps translated, its ``ct_`` fields, and its connection. With *helper*,
    the connection's helper must see it before it continues."""

    data: bytes
    fields: Fields
    seen: Seen | None
    helper: bool = False


@dataclass(slots=True)
class Tracker:
    """Connections, and the effect of packets on them. *now* is the time in nanoseconds; the caller sets it."""

    now: int = 0
    max_connections: int = 0
    """nf_conntrack_max; 0 means no limit."""
    checksums: bool = True
    """nf_conntrack_checksum: a datagram whose checksum is wrong is invalid."""
    limits: dict[int, int] = field(default_factory=dict)
    """The number of connections that may be committed in each zone (ovs_ct_limit); 0 means no limit."""
    default_limit: int = 0
    timeouts: dict[str, Timeouts] = field(default_factory=lambda: {"": Timeouts()})
    """Timeout policies by name; the one without a name is the default."""
    expectations: Expectations = field(default_factory=Expectations)
    _table: dict[tuple[int, Tuple], tuple[Connection, int]] = field(default_factory=dict)
    _sources: Sources = field(default_factory=Sources)

    # ---- the table ----

    def connections(self) -> Iterator[Connection]:
        """All connections that have not expired, oldest first."""
        for connection in self._known_by_tuple():
            if self._alive(connection):
                yield connection

    def _known_by_tuple(self) -> list[Connection]:
        """Each connection once; a connection of an address with itself may have the same tuple in both directions."""
        return list(dict.fromkeys(connection for connection, _direction in self._table.values()))

    def find(self, zone: int, one: Tuple) -> tuple[Connection, int] | None:
        """The connection with this tuple in one of its directions, and the direction. An expired one is removed
        (____nf_conntrack_find())."""
        found = self._table.get((zone, one))
        if found and not self._alive(found[0]):
            self.remove(found[0])
            return None
        return found

    def _alive(self, connection: Connection) -> bool:
        return connection.expires > self.now

    def remove(self, connection: Connection) -> None:
        """Remove a connection (nf_ct_delete())."""
        connection.status |= Status.DYING
        for one in connection.tuples:
            found = self._table.get((connection.zone, one))
            if found and found[0] is connection:
                del self._table[connection.zone, one]
        self._sources.drop(connection)

    def sweep(self) -> list[Connection]:
        """Remove the connections that have expired, and return them."""
        ended = [one for one in self._known_by_tuple() if not self._alive(one)]
        for connection in ended:
            self.remove(connection)
        return ended

    def _count(self, zone: int) -> int:
        """The connections of a zone that are not closed (already_closed() in nf_conncount.c)."""
        return sum(one.zone == zone and not tcp.is_closed(one) for one in self.connections())

    # ---- which connection a datagram is of ----

    def classify(self, data: bytes, family: int, zone: int, timeouts: Timeouts) -> Seen | None:
        """Find the connection of a datagram and update it; a new one is not in the table yet (nf_conntrack_in()).

        Returns ``None`` if the datagram is invalid or not tracked.

        Raises:
            DroppedError: the table is full.
        """
        found = transport(data, family)
        if found is None or (self.checksums and checksum.is_wrong(data, family, found)):
            return None
        if found.proto in (ICMP, ICMPV6):
            about = icmp.about(data, family, found)
            if about is None:
                return None
            if about.error:
                return self._related(data, family, zone, about.inner)
        while True:
            seen = self._resolve(data, family, zone, timeouts)
            if seen is None:
                return None
            verdict = self._handle(seen, data, found.at)
            if verdict is Verdict.REPEAT:
                self.remove(seen.connection)
                continue
            if verdict is not Verdict.ACCEPT:
                return None
            if seen.connection.status & Status.DYING:
                self.remove(seen.connection)
            if seen.direction == REPLY:
                seen.connection.status |= Status.SEEN_REPLY
            return seen

    def _resolve(self, data: bytes, family: int, zone: int, timeouts: Timeouts) -> Seen | None:
        """resolve_normal_ct()."""
        one = tuple_of(data, family)
        if one is None:
            return None
        found = self.find(zone, one)
        if found is None:
            answer = one.inverse()
            if answer is None:
                return None
            if 0 < self.max_connections <= len(self._table) // 2:
                raise DroppedError
            found = Connection(zone, [one, answer], timeouts), ORIGINAL
            self.expectations.begin(found[0], self.now)
        return _seen(*found)

    def _handle(self, seen: Seen, data: bytes, at: int) -> Verdict:
        """nf_conntrack_handle_packet()."""
        connection, direction = seen.connection, seen.direction
        match connection.proto:
            case 6:
                return tcp.packet(connection, data, at, direction, self.now)
            case 17:
                return datagrams.udp(connection, data, at, direction, self.now)
            case 136:
                return datagrams.udplite(connection, data, at, direction, self.now)
            case 132:
                return sctp.packet(connection, data, at, direction, self.now)
            case 1 | 58:
                return datagrams.icmp(connection, data, direction, self.now)
            case 47:
                return datagrams.gre(connection, data, direction, self.now)
        return datagrams.generic(connection, data, direction, self.now)

    def _related(self, data: bytes, family: int, zone: int, inner: int) -> Seen | None:
        """The connection that an ICMP error is about, if the error goes to the sender of the quoted packet
        (nf_conntrack_inet_error())."""
        one = tuple_of(data, family, inner)
        answer = one.inverse() if one else None
        found = self.find(zone, answer) if answer else None
        if found is None:
            return None
        connection, direction = found
        to = data[16:20] if family == IPV4 else data[24:40]
        return Seen(connection, Relation.RELATED, direction) if connection.tuples[direction].dst == to else None

    def _again(self, data: bytes, family: int, zone: int, *, translated: bool) -> Seen | None:
        """The connection of a datagram that has been tracked before and perhaps translated, without updating it
        (ovs_ct_find_existing())."""
        one = tuple_of(data, family)
        if one and translated:
            one = one.inverse()
        found = self.find(zone, one) if one else None
        if found is None:
            return None
        return _seen(found[0], 1 - found[1] if translated else found[1])

    # ---- the action ----

    def execute(
        self,
        action: Ct,
        data: bytes,
        family: int,
        fields: Fields,
        seen: Seen | None = None,
        *,
        ovs: bool = True,
        entropy: int = 0,
    ) -> Tracked:
        """Do *action* with a whole datagram, as Open vSwitch (ovs_ct_execute()) or TC does (tcf_ct_act()).

        *fields* and *seen* are what is known of the packet: its ``ct_`` fields and its connection. *entropy* is 16 bits
        that stand for random numbers.

        Raises:
            DroppedError: the packet is dropped.
        """
        data = trimmed(data, family)
        known, fields = self._known(action, data, family, fields, seen, ovs=ovs), dict(fields)
        looked = known is None
        if known is None:
            timeouts = self.timeouts.get(action.timeout, self.timeouts[""])
            if action.offload:
                known = in_software(self.find, data, family, action.zone, self.now)
            known = known or self.classify(data, family, action.zone, timeouts)
            fields = fields_of(known, action.zone, family)
        elif known.connection.status & Status.DYING:  # it was the last packet: all has been done
            return Tracked(data, fields, known)
        if known is None:
            return Tracked(data, fields, None)
        connection = known.connection
        once = not ovs or not fields.get("ct_state", 0) & NAT_STATE
        if action.nat and once and (connection.confirmed or action.commit):
            data = self._translate(known, action, data, family, fields, entropy)
        if ovs and connection.proto == TCP and connection.confirmed and connection.established:
            tcp.be_liberal(connection)
        looked |= not connection.confirmed
        if action.commit:
            known = self._commit(known, action, fields, ovs=ovs)
        if action.offload:
            offer(known, self.now)
        return Tracked(data, fields, known, helper=looked and _is_for_helper(known, data, family))

    @staticmethod
    def invalid(action: Ct) -> Fields:
        """The ``ct_`` fields of an invalid packet."""
        return fields_of(None, action.zone, IPV4)

    def _known(
        self, action: Ct, data: bytes, family: int, fields: Fields, seen: Seen | None, *, ovs: bool
    ) -> Seen | None:
        """The connection that an earlier action has found in this zone (skb_nfct_cached(), tcf_ct_skb_nfct_cached()).

        None was found for an action that names another timeout policy than the connection has. With *force*, a
        connection is removed if the packet is a reply, as if none had been found.
        """
        executed = True
        if seen is None:
            if not ovs:
                return None
            state = fields.get("ct_state", 0)
            executed = bool(state & CtState.TRK) and not state & CtState.INV and fields.get("ct_zone", 0) == action.zone
            if executed or (not state and action.force):
                seen = self._again(data, family, action.zone, translated=bool(state & NAT_STATE))
        if seen is None or seen.connection.zone != action.zone:
            return None
        if action.timeout and seen.connection.timeouts is not self.timeouts.get(action.timeout):
            return None
        if action.force and seen.direction == REPLY:
            self.remove(seen.connection)
            return None
        return seen if executed else None

    def _commit(self, seen: Seen, action: Ct, fields: Fields, *, ovs: bool) -> Seen:
        """ovs_ct_commit(): a new connection enters the table with its mark and labels."""
        connection = seen.connection
        if not connection.confirmed and ovs:
            limit = self.limits.get(action.zone, self.default_limit)
            if 0 < limit <= self._count(action.zone):
                raise DroppedError
        if action.eventmask is not None:
            connection.eventmask = action.eventmask
        if action.mark and action.mark.mask:
            mark = _written(connection.mark, action.mark)
            if mark != connection.mark:
                connection.mark = mark
                put(fields, "ct_mark", mark)
        labels = action.labels if action.labels and action.labels.mask else None
        if connection.master and not connection.confirmed:
            connection.labels = connection.master.labels
            labels = labels or Masked(0, 0)
        if labels:
            connection.labels = _written(connection.labels, labels)
            put(fields, "ct_labels", connection.labels)
        if not connection.confirmed and action.helper:
            connection.helper = action.helper
            connection.status |= Status.HELPER
        return seen if connection.confirmed else self._confirm(seen)

    def _confirm(self, seen: Seen) -> Seen:
        """Enter a connection into the table, where no other may have one of its tuples (__nf_conntrack_confirm())."""
        connection = seen.connection
        for one in connection.tuples:
            if found := self.find(connection.zone, one):
                return _merged(seen, found[0])
        connection.expires += self.now
        connection.status |= Status.CONFIRMED
        for direction, one in enumerate(connection.tuples):
            self._table[connection.zone, one] = connection, direction
        self._sources.add(connection)
        if connection.master:
            self.expectations.end(connection)
        return seen

    # ---- hardware's part ----

    def translated(self, seen: Seen, nat: Nat, data: bytes, family: int, fields: Fields) -> bytes:
        """Translate a datagram as its connection is, and note it in *fields*."""
        return self._translate(seen, Ct(nat=nat), data, family, fields, 0)

    # ---- NAT ----

    def _translate(self, seen: Seen, action: Ct, data: bytes, family: int, fields: Fields, entropy: int) -> bytes:
        """Translate a datagram as its connection says, or as *action* says for a new one (nf_ct_nat())."""
        connection, relation, direction = seen
        nat = action.nat
        assert nat is not None
        if (
            relation is not Relation.NEW
            and connection.status & NAT_MASK
            and ((relation, direction) != (Relation.RELATED, ORIGINAL) or action.commit)
        ):
            kind = NatKind.SRC if connection.status & Status.SRC_NAT else NatKind.DST
            if direction == REPLY:
                kind = _OTHER[kind]
        elif nat.kind is not None:
            kind = nat.kind
        else:
            return data
        out = bytearray(data)
        done = self._translate_end(seen, nat, kind, out, family, entropy)
        if connection.status & Status.DST_NAT:
            if connection.status & Status.SRC_NAT:
                done |= self._translate_end(seen, nat, _OTHER[kind], out, family, entropy)
            elif direction == ORIGINAL:
                done |= self._translate_end(seen, None, NatKind.SRC, out, family, entropy)
        put(fields, "ct_state", fields.get("ct_state", 0) | done)
        return bytes(out)

    def _translate_end(
        self, seen: Seen, nat: Nat | None, kind: NatKind, data: bytearray, family: int, entropy: int
    ) -> CtState:
        """Translate one end of a datagram (nf_ct_nat_execute()); return the bit of ``ct_state`` for that end."""
        connection, relation, direction = seen
        proto = transport(bytes(data), family)
        try:
            if relation is Relation.RELATED and proto and proto.proto == (ICMP if family == IPV4 else ICMPV6):
                self._translate_error(seen, kind, data, proto)
                return _BITS[kind]
            if relation is not Relation.ESTABLISHED and not connection.status & _DONE[kind]:
                self._set_up(connection, nat, kind, entropy)
            if connection.status & _translated(kind, direction):
                translate(data, kind, _leaves(connection, direction))
        except UntranslatableError:
            raise DroppedError from None
        return _BITS[kind]

    def _set_up(self, connection: Connection, nat: Nat | None, kind: NatKind, entropy: int) -> None:
        """Choose the translation of a new connection at one end (nf_nat_setup_info()).

        Without a range, or with one of the other family, the address stays, and the port if it is free
        (nf_nat_alloc_null_binding()).
        """
        if connection.confirmed:
            return
        wanted = _leaves(connection, ORIGINAL)
        if nat is None or len(nat.ip_min) != len(wanted.src):
            address = wanted.src if kind is NatKind.SRC else wanted.dst
            nat = Nat(kind, address, address)

        def holder(one: Tuple) -> tuple[Connection, int] | None:
            answer = one.inverse()
            found = self._table.get((connection.zone, answer)) if answer else None
            return found if found and self._alive(found[0]) else None

        def taken(one: Tuple) -> bool:
            found = holder(one)
            return found is not None and found[0].tuples[ORIGINAL] != connection.tuples[ORIGINAL]

        def vacated(one: Tuple) -> bool:
            found = holder(one)
            if found is None or found[1] != REPLY or not tcp.may_replace(found[0], connection):
                return False
            self.remove(found[0])
            return True

        mappings = self._sources.of(connection.zone, wanted)
        chosen = unique_tuple(wanted, nat, kind, connection.zone, taken, entropy, mappings, vacated)
        if chosen != wanted:
            answer = chosen.inverse()
            assert answer is not None
            connection.tuples[REPLY] = answer
            connection.status |= _STATUS[kind]
        connection.status |= _DONE[kind]

    @staticmethod
    def _translate_error(seen: Seen, kind: NatKind, data: bytearray, header: Transport) -> None:
        """nf_nat_icmp_reply_translation()."""
        connection, _, direction = seen
        if checksum.is_wrong(bytes(data), connection.tuples[direction].family, header):
            raise DroppedError
        if (header.proto, data[header.at]) == (ICMP, REDIRECT) and (
            connection.status & NAT_DONE_MASK != NAT_DONE_MASK or connection.status & NAT_MASK
        ):
            raise DroppedError
        if connection.status & _translated(kind, direction):
            other = connection.tuples[1 - direction]
            translate_error(data, header.at, kind, other, _leaves(connection, direction))


def _seen(connection: Connection, direction: int) -> Seen:
    """A packet's relation to its connection (ovs_ct_get_info())."""
    if direction == REPLY or connection.status & Status.SEEN_REPLY:
        return Seen(connection, Relation.ESTABLISHED, direction)
    return Seen(connection, Relation.RELATED if connection.status & Status.EXPECTED else Relation.NEW, direction)


def _merged(seen: Seen, first: Connection) -> Seen:
    """Resolve a clash: if another packet has just confirmed the same UDP connection, or its reverse, use that one
    (nf_ct_resolve_clash()). Unlike Linux, drop the packet if NAT has translated the two differently."""
    late = seen.connection
    if late.proto not in (UDP, UDPLITE) or late.tuples not in (first.tuples, first.tuples[::-1]):
        raise DroppedError
    first.packets[ORIGINAL] += 1
    first.bytes[ORIGINAL] += late.bytes[ORIGINAL]
    return seen._replace(connection=first)


def _written(old: int, new: Masked) -> int:
    return old & ~new.mask | new.value


def _leaves(connection: Connection, direction: int) -> Tuple:
    """The tuple of a direction's packets after NAT: the inverse of the other direction's."""
    answered = connection.tuples[1 - direction].inverse()
    assert answered is not None
    return answered


def _translated(kind: NatKind, direction: int) -> Status:
    """The status bit for packets of a direction that are translated at the end *kind*."""
    return _STATUS[kind if direction == ORIGINAL else _OTHER[kind]]


def _is_for_helper(seen: Seen, data: bytes, family: int) -> bool:
    """Whether a helper must read the datagram: its connection has one, and it has data and is not an ICMP error."""
    connection = seen.connection
    if not connection.helper or not connection.confirmed or connection.status & Status.DYING:
        return False
    found = transport(data, family)
    if found is None or (seen.relation is Relation.RELATED and found.proto in (ICMP, ICMPV6)):
        return False
    if connection.proto != TCP or connection.status & Status.SEQ_ADJUST:
        return True
    return len(data) > found.at + 12 and found.at + (data[found.at + 12] >> 4) * 4 < len(data)
